//! The way from the core's threads to the thread of one JavaScript environment.
//!
//! The core's background thread renews leases, so it never waits for JavaScript, which may compute
//! for seconds: it leaves a message, and wakes the event loop. Messages that the loop never takes,
//! because the environment ends before, are dropped with it, and a lock that was granted in one is released.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gitlock::{CancelToken, LockGuard, LockManager, Result, json};
use napi::{
    Env, Status,
    bindgen_prelude::{Either5, Function},
    sys,
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use napi_derive::napi;

use crate::{errors::caught, guard::Guard, manager::Manager, multi::MultiGuard, pool};

/// Doesn't keep the event loop alive unless it is told to.
type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// What a call is answered, or a listener told.
pub(crate) enum Told {
    Nothing,
    Text(String),
    Number(f64),
    /// A guard, and whether its tenure goes on when nobody here has it any more.
    Guard(Box<LockGuard>, bool),
    Manager(LockManager),
    MultiGuard(Arc<gitlock::MultiGuard>),
}

/// One answer, or one piece of news.
#[napi(object, object_from_js = false)]
pub struct Message {
    /// The call's number, or the listener's.
    pub to: u32,
    /// What went wrong, as JSON.
    pub error: Option<String>,
    pub value: Option<Either5<String, f64, Guard, Manager, MultiGuard>>,
}

struct State {
    wake: Option<Arc<Wake>>,
    messages: VecDeque<(u32, Result<Told>)>,
    /// What ends each wait that goes on.
    waits: HashMap<u32, CancelToken>,
    closed: bool,
}

/// Where messages are left for one environment.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Mutex<State>>);

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a message. Any thread may; none waits.
    pub(crate) fn tell(&self, to: u32, what: Result<Told>) {
        let mut state = self.lock();
        state.waits.remove(&to);
        if state.closed {
            drop(state);
            // Nobody is going to take it: a guard in it releases its lock.
            drop(what);
            return;
        }
        state.messages.push_back((to, what));
        // With others before it the loop is awake already.
        let wake = state.wake.clone().filter(|_| state.messages.len() == 1);
        // The loop would only wake to wait for this.
        drop(state);
        if let Some(wake) = wake {
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// Has this done on a thread of the addon's, and the call answered.
    pub(crate) fn answer(&self, call: u32, run: impl FnOnce() -> Result<Told> + Send + 'static) {
        let outbox = self.clone();
        pool::run(move || outbox.tell(call, caught(run)));
    }

    /// A token that ends this call's wait.
    pub(crate) fn wait(&self, call: u32) -> CancelToken {
        let token = CancelToken::new();
        let mut state = self.lock();
        if state.closed {
            token.cancel();
        } else {
            state.waits.insert(call, token.clone());
        }
        token
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let (wake, messages, waits) =
            (state.wake.take(), std::mem::take(&mut state.messages), std::mem::take(&mut state.waits));
        drop(state);
        waits.values().for_each(CancelToken::cancel);
        drop((wake, messages));
    }
}

/// The environment's end of it.
#[napi]
pub struct Bridge(Outbox);

#[napi]
impl Bridge {
    /// `wake()` is called on the environment's thread when there are messages to take.
    #[napi(constructor)]
    pub fn new(env: Env, wake: Function<'_, (), ()>) -> napi::Result<Bridge> {
        let wake = wake
            .build_threadsafe_function::<()>()
            .callee_handled::<false>()
            .weak::<true>()
            .build_callback(|_| Ok(()))?;
        let state =
            State { wake: Some(Arc::new(wake)), messages: VecDeque::new(), waits: HashMap::new(), closed: false };
        let outbox = Outbox(Arc::new(Mutex::new(state)));
        env.add_env_cleanup_hook(outbox.clone(), |outbox| outbox.close())?;
        Ok(Bridge(outbox))
    }

    /// The next message, if there is one.
    #[napi]
    pub fn take(&self) -> Option<Message> {
        let (to, what) = self.0.lock().messages.pop_front()?;
        let value = match what {
            Err(error) => return Some(Message { to, error: Some(json::error(&error).to_string()), value: None }),
            Ok(Told::Nothing) => None,
            Ok(Told::Text(text)) => Some(Either5::A(text)),
            Ok(Told::Number(number)) => Some(Either5::B(number)),
            Ok(Told::Guard(guard, outlives)) => Some(Either5::C(Guard::new(&self.0, *guard, outlives))),
            Ok(Told::Manager(manager)) => Some(Either5::D(Manager::new(&self.0, manager))),
            Ok(Told::MultiGuard(guard)) => Some(Either5::E(MultiGuard::new(&self.0, guard))),
        };
        Some(Message { to, error: None, value })
    }

    /// Ends the wait of a call, which is answered then, unless it is over already.
    #[napi]
    pub fn cancel(&self, call: u32) {
        let token = self.0.lock().waits.get(&call).cloned();
        // What it wakes takes locks of its own.
        if let Some(token) = token {
            token.cancel();
        }
    }

    /// Keeps the event loop alive, or no longer: while a call goes on.
    #[napi]
    pub fn keep_alive(&self, env: Env, alive: bool) {
        let Some(wake) = self.0.lock().wake.clone() else { return };
        // The safe way takes it exclusively, and the loop would wait for whoever is waking it.
        // SAFETY: this is the environment's thread, and the function lives as long as `wake` does.
        unsafe {
            if alive {
                sys::napi_ref_threadsafe_function(env.raw(), wake.raw());
            } else {
                sys::napi_unref_threadsafe_function(env.raw(), wake.raw());
            }
        }
    }

    /// Answers a call from a thread of the addon's, which does nothing else: what the way there and back costs.
    #[napi]
    pub fn hop(&self, call: u32) {
        self.0.answer(call, || Ok(Told::Nothing));
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0
    }
}
