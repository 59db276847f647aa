//! The shim of the Rust surface: `conformance_rust blocking|start`. With `start` every acquire goes
//! through `LockRequest::start`, the path on which surfaces without blocking calls are built.
//!
//! tests/conformance/README.md says what is asked and answered.
#![allow(clippy::panic)] // a shim that is asked nonsense may fall over

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, Write},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use gitlock::{
    CancelToken, Error, ErrorCode, LockGuard, LockHandle, LockManager, LockRequest, MultiGuard, Options, PushSpec,
    RefUpdate, Repositories, Result, SyncStrategy, Waiting, json,
};

const OPERATIONS: &str = "open close acquire try start cancel look extend release upgrade start-upgrade downgrade \
    token-of wanted heed watch handle detach fork handle-of resume extend-handle release-handle status update-refs push \
    verify list graph log break clean doctor sync everywhere quorum let-go";

type Fields = BTreeMap<String, String>;
type Told = Vec<(&'static str, String)>;
type Guards = Arc<Mutex<HashMap<String, Arc<LockGuard>>>>;

fn encode(value: &str) -> String {
    value.replace('%', "%25").replace('\t', "%09").replace('\n', "%0A").replace('\r', "%0D")
}

fn decode(value: &str) -> String {
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at(2.min(part.len()));
        text.push(u8::from_str_radix(hex, 16).unwrap_or(b'?').into());
        text += rest;
    }
    text
}

/// Writes one line, in one piece.
fn say(verb: &str, fields: &[(&str, String)]) {
    let fields: String = fields.iter().map(|(key, value)| format!("\t{key}={}", encode(value))).collect();
    let _ = writeln!(std::io::stdout().lock(), "{verb}{fields}");
}

fn told(error: &Error) -> [(&'static str, String); 2] {
    [("class", "gitlock::Error".to_owned()), ("error", json::error(error).to_string())]
}

fn described(guard: &LockGuard) -> Told {
    let mode = guard.mode().as_str().to_owned();
    let mut told = vec![("id", guard.id().to_owned()), ("token", guard.token().to_string()), ("mode", mode)];
    told.extend(guard.slot().map(|slot| ("slot", slot.to_string())));
    told
}

/// How the wait of a `start` is ended.
enum Wait {
    Token(CancelToken),
    Waiting(Waiting),
}

struct Shim {
    starts: bool,
    manager: Option<LockManager>,
    guards: Guards,
    waits: HashMap<String, Wait>,
    /// Those in several repositories.
    several: HashMap<String, MultiGuard>,
}

fn millis(fields: &Fields, key: &str) -> Option<Duration> {
    fields.get(key).and_then(|value| value.parse().ok()).map(Duration::from_millis)
}

fn names(fields: &Fields) -> Vec<&str> {
    let also = fields.get("also").into_iter().flat_map(|also| also.split(','));
    std::iter::once(&*fields["name"]).chain(also).collect()
}

fn request<'a>(manager: &'a LockManager, fields: &Fields) -> LockRequest<'a> {
    let names = names(fields);
    let request = if let [name] = names[..] { manager.lock(name) } else { manager.lock_all(&names) };
    with_options(request, fields)
}

fn with_options<'a>(mut request: LockRequest<'a>, fields: &Fields) -> LockRequest<'a> {
    for (key, value) in fields {
        request = match &**key {
            "shared" => request.shared(),
            "ttl" => request.ttl(millis(fields, key).unwrap_or_default()),
            "wait" => request.wait(millis(fields, key).unwrap_or_default()),
            "max_hold" => request.max_hold(millis(fields, key).unwrap_or_default()),
            "priority" => request.priority(value.parse().unwrap_or_default()),
            "fingerprint" => request.fingerprint(value),
            "reason" => request.reason(value),
            "owner" => request.owner(value),
            "slots" => request.slots(value.parse().unwrap_or_default()),
            "renew" => request.renew(value == "yes"),
            "reentrant" => request.reentrant(true),
            "within" => request.within(&value.parse().unwrap_or_else(|error| panic!("{error}"))),
            _ => request,
        };
    }
    request
}

/// Acquires in several repositories, on the path that was chosen.
fn take_several(verb: &str, fields: &Fields, starts: bool) -> Result<MultiGuard> {
    let managers = fields["places"].split(',').map(LockManager::open).collect::<Result<Vec<_>>>()?;
    let repositories = Repositories::new(managers)?;
    let request =
        if verb == "quorum" { repositories.quorum(&fields["name"]) } else { repositories.all(&names(fields)) };
    let request = request.with(|each| with_options(each, fields));
    if !starts {
        return request.acquire();
    }
    let (sender, done) = mpsc::channel();
    request.start(move |result| _ = sender.send(result))?;
    done.recv().unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "`done` was never called")))
}

/// Acquires on the path that was chosen.
fn take(request: LockRequest<'_>, starts: bool) -> Result<LockGuard> {
    if !starts {
        return request.acquire();
    }
    let (sender, done) = mpsc::channel();
    request.start(move |result| _ = sender.send(result))?;
    done.recv().unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "`done` was never called")))
}

impl Shim {
    fn manager(&self) -> LockManager {
        self.manager.clone().unwrap_or_else(|| panic!("nothing is open"))
    }

    fn with<T>(&self, fields: &Fields, run: impl FnOnce(&LockGuard) -> T) -> T {
        let guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        run(guards.get(&fields["guard"]).unwrap_or_else(|| panic!("there is no guard {:?}", fields["guard"])))
    }

    fn remove(&self, fields: &Fields) -> LockGuard {
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let guard =
            guards.remove(&fields["guard"]).unwrap_or_else(|| panic!("there is no guard {:?}", fields["guard"]));
        Arc::into_inner(guard).unwrap_or_else(|| panic!("{:?} is being upgraded", fields["guard"]))
    }

    fn keep(&self, fields: &Fields, guard: LockGuard) -> Told {
        let told = described(&guard);
        let name = fields.get("as").cloned().unwrap_or_else(|| guard.name().as_str().to_owned());
        self.guards.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(guard));
        told
    }

    /// Upgrades in the background, and tells when that is over.
    fn start_upgrade(&mut self, fields: &Fields) {
        let (about, token, wait) = (fields["wait_as"].clone(), CancelToken::new(), millis(fields, "wait"));
        self.waits.insert(about.clone(), Wait::Token(token.clone()));
        let guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = guards[&fields["guard"]].clone();
        std::thread::spawn(move || {
            let result = guard.upgrade(wait, Some(&token));
            let told = result.err().map(|error| told(&error).to_vec()).unwrap_or_else(|| described(&guard));
            drop(guard);
            say("event", &[vec![("kind", "ended".to_owned()), ("about", about)], told].concat());
        });
    }

    /// Waits in the background, and tells when that is over.
    fn start(&mut self, fields: &Fields) -> Result<()> {
        let (manager, name, guards) = (self.manager(), fields["wait_as"].clone(), self.guards.clone());
        let (about, ended) = (name.clone(), name.clone());
        let progress = move |progress: &gitlock::WaitProgress| {
            let fields = [("kind", "waiting".into()), ("about", about.clone()), ("ahead", progress.ahead.to_string())];
            say("event", &fields);
        };
        let done = move |result: Result<LockGuard>| {
            let mut fields = vec![("kind", "ended".to_owned()), ("about", ended.clone())];
            match result {
                Ok(guard) => {
                    fields.extend(described(&guard));
                    guards.lock().unwrap_or_else(PoisonError::into_inner).insert(ended, Arc::new(guard));
                }
                Err(error) => fields.extend(told(&error)),
            }
            say("event", &fields);
        };
        let wait = if self.starts {
            Wait::Waiting(request(&manager, fields).on_wait(progress).start(done)?)
        } else {
            let (token, fields) = (CancelToken::new(), fields.clone());
            let there = token.clone();
            std::thread::spawn(move || done(request(&manager, &fields).cancel(&there).on_wait(progress).acquire()));
            Wait::Token(token)
        };
        self.waits.insert(name, wait);
        Ok(())
    }

    /// A copy of this process tries to use a guard, and answers in its place.
    fn fork(&self, fields: &Fields, number: &str) {
        // SAFETY: the child uses one guard, writes one line, and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            answer(number, self.with(fields, |guard| guard.extend(None)).map(|()| Vec::new()));
            // SAFETY: ends the child without running what the parent registered.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: waits for the child that was just forked.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }

    fn carry_out(&mut self, verb: &str, fields: &Fields) -> Result<Told> {
        let get = |key: &str| fields.get(key).map(String::as_str);
        let handle = || fields["handle"].parse::<LockHandle>();
        let json = |value: json::Value| vec![("json", value.to_string())];
        let as_handle = |handle: LockHandle| vec![("handle", handle.to_string())];
        let mut told = Vec::new();
        match verb {
            "supports" => told.push(("operations", OPERATIONS.to_owned())),
            "open" => self.manager = Some(LockManager::open_with(&fields["path"], options(fields))?),
            "close" => self.manager.take().iter().for_each(LockManager::close),
            "acquire" => told = self.keep(fields, take(request(&self.manager(), fields), self.starts)?),
            "try" if self.starts => {
                told = self.keep(fields, take(request(&self.manager(), fields).wait(Duration::ZERO), true)?);
            }
            "try" => told = self.keep(fields, request(&self.manager(), fields).acquire_now()?),
            "start" => self.start(fields)?,
            "cancel" => match &self.waits[&fields["wait_as"]] {
                Wait::Token(token) => token.cancel(),
                Wait::Waiting(waiting) => waiting.cancel(),
            },
            "look" => {
                told = self.with(fields, |guard| {
                    let (lost, remaining) = (guard.is_lost().to_string(), guard.remaining().as_millis().to_string());
                    [described(guard), vec![("lost", lost), ("remaining", remaining)]].concat()
                });
            }
            "everywhere" | "quorum" => {
                let guard = take_several(verb, fields, self.starts)?;
                told.push(("token", guard.token().to_string()));
                self.several.insert(get("as").unwrap_or(&fields["name"]).to_owned(), guard);
            }
            "let-go" => self.several[&fields["guard"]].release()?,
            "extend" => self.with(fields, |guard| guard.extend(millis(fields, "ttl")))?,
            "release" => self.remove(fields).release()?,
            "upgrade" => self.with(fields, |guard| guard.upgrade(millis(fields, "wait"), None))?,
            "start-upgrade" => self.start_upgrade(fields),
            "downgrade" => self.with(fields, LockGuard::downgrade)?,
            "token-of" => {
                let token = self.with(fields, |guard| guard.token_of(&fields["name"]));
                told.extend(token.map(|token| ("token", token.to_string())));
            }
            "wanted" => told = json(json::wanted(&self.with(fields, LockGuard::wanted)?)),
            "heed" => self.with(fields, |guard| heed(guard, fields["guard"].clone())),
            "graph" => told = json(json::graph(&self.manager().graph()?)),
            "sync" => {
                let there = LockManager::open(&fields["there"])?;
                let strategy = fields.get("strategy").map_or(Ok(SyncStrategy::default()), |word| word.parse())?;
                told = json(json::synced(&self.manager().sync(&there, strategy)?));
            }
            "watch" => self.with(fields, |guard| watch(guard, fields["guard"].clone())),
            "handle" => told = as_handle(self.with(fields, LockGuard::handle)),
            "detach" => told = as_handle(self.remove(fields).detach()),
            "handle-of" => told = as_handle(LockHandle::by_fingerprint(&fields["name"], &fields["fingerprint"])?),
            "resume" => told = self.keep(fields, self.manager().resume(&handle()?)?),
            "extend-handle" => {
                let left = self.manager().extend(&handle()?, millis(fields, "ttl"))?;
                told.push(("remaining", left.as_millis().to_string()));
            }
            "release-handle" => self.manager().release(&handle()?)?,
            "update-refs" => {
                let lines = [get("change"), get("also")].into_iter().flatten();
                let updates = lines.map(str::parse).collect::<Result<Vec<RefUpdate>>>()?;
                self.with(fields, |guard| guard.update_refs(&updates, get("message")))?;
            }
            "push" => {
                let texts = [get("refspec"), get("also")].into_iter().flatten();
                let specs = texts.map(str::parse).collect::<Result<Vec<PushSpec>>>()?;
                self.with(fields, |guard| guard.push(&specs))?;
            }
            "verify" => {
                let token = fields["token"].parse().unwrap_or_default();
                self.manager().verify(&fields["name"], token)?;
            }
            "status" => told = json(json::status(&self.manager().status(&fields["name"])?)),
            "list" => told = json(json::listing(&self.manager().list()?)),
            "log" => {
                let most = get("most").and_then(|most| most.parse().ok()).unwrap_or(100);
                told = json(json::log(&fields["name"], &self.manager().log(&fields["name"], most)?));
            }
            "break" => {
                let broken = self.manager().break_lock(&fields["name"], get("tenure"), get("reason"))?;
                told = json(json::broken(&fields["name"], &broken));
            }
            "clean" => told = json(json::cleaned(&self.manager().clean(millis(fields, "grace"))?)),
            "doctor" => told = json(json::findings(&self.manager().doctor(get("fix").is_some())?)),
            other => panic!("nobody knows how to {other:?}"),
        }
        Ok(told)
    }
}

fn options(fields: &Fields) -> Options {
    let mut options = Options::default();
    options.lock_prefix = fields.get("prefix").cloned();
    options.owner = fields.get("owner").cloned();
    options.remote = fields.get("remote").cloned();
    options.keep = fields.get("keep").and_then(|keep| keep.parse().ok());
    options.lock_timeout = millis(fields, "lock_timeout").unwrap_or(options.lock_timeout);
    options.max_clock_skew = millis(fields, "max_clock_skew");
    options
}

fn watch(guard: &LockGuard, about: String) {
    guard.on_lost(move |error| {
        let [class, error] = told(error);
        say("event", &[("kind", "lost".to_owned()), ("about", about), class, error]);
    });
}

fn heed(guard: &LockGuard, about: String) {
    guard.on_wanted(move |wanted| {
        let mut fields = vec![("kind", "wanted".to_owned()), ("about", about.clone())];
        fields.push(("waiters", wanted.waiters.to_string()));
        fields.extend(wanted.priority.map(|priority| ("priority", priority.to_string())));
        say("event", &fields);
    });
}

fn answer(number: &str, result: Result<Told>) {
    let n = [("n", number.to_owned())];
    match result {
        Ok(fields) => say("ok", &[&n[..], &fields].concat()),
        Err(error) => say("error", &[&n[..], &told(&error)].concat()),
    }
}

fn main() {
    let starts = std::env::args().nth(1).as_deref() == Some("start");
    let mut shim =
        Shim { starts, manager: None, guards: Guards::default(), waits: HashMap::new(), several: HashMap::new() };
    for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
        let mut words = line.split('\t');
        let verb = words.next().unwrap_or_default();
        let fields: Fields =
            words.filter_map(|word| word.split_once('=')).map(|(key, value)| (key.to_owned(), decode(value))).collect();
        match verb {
            "fork" => shim.fork(&fields, &fields["n"]),
            verb => answer(&fields["n"], shim.carry_out(verb, &fields)),
        }
    }
}
