//! A small HTTP server that runs `git http-backend`, for tests alone: connections are kept, and a
//! gate decides who comes in.

use std::{
    collections::HashMap,
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

/// Answers in the server's place, or lets a request in: method, path with query, headers.
pub type Gate = Box<dyn Fn(&str, &str, &HashMap<String, String>) -> Option<(u16, String)> + Send + Sync>;

/// A server that goes away with this.
pub struct Web {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    gate: Mutex<Gate>,
    over: AtomicBool,
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Web {
    /// Starts one that shows this folder to everybody.
    pub fn start(folder: &Path) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            gate: Mutex::new(Box::new(|_, _, _| None)),
            over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.over.load(SeqCst) {
                    return;
                }
                theirs.connections.fetch_add(1, SeqCst);
                let shared = theirs.clone();
                std::thread::spawn(move || serve(&shared, &stream));
            }
        });
        Web { port, shared }
    }

    /// Who comes in from now on.
    pub fn gate(&self, gate: Gate) {
        *self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// The requests since the last call: method and path.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        // So that it sees it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(shared: &Shared, stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut from = BufReader::new(stream);
    while !shared.over.load(SeqCst) {
        let Some(answer) = answer(shared, &mut from) else { return };
        if { stream }.write_all(&answer).is_err() {
            return;
        }
    }
}

/// One request and its answer; `None` at the end of the connection.
fn answer(shared: &Shared, from: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let body = body(from, &headers)?;
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{method} {target}"));
    let refused = shared.gate.lock().unwrap_or_else(PoisonError::into_inner)(&method, &target, &headers);
    let (status, kind, body) = match refused {
        Some((status, text)) if (300..400).contains(&status) => {
            return Some(
                format!("HTTP/1.1 {status} Moved\r\nLocation: {text}\r\nContent-Length: 0\r\n\r\n").into_bytes(),
            );
        }
        Some((status, text)) => (format!("{status} Refused"), "text/plain".to_owned(), text.into_bytes()),
        None => backend(shared, &method, &target, &headers, &body)?,
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    Some(answer)
}

fn body(from: &mut BufReader<&TcpStream>, headers: &HashMap<String, String>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let mut line = String::new();
            from.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.trim(), 16).ok()?;
            from.take(size).read_to_end(&mut body).ok()?;
            from.read_line(&mut line).ok()?;
            if size == 0 {
                return Some(body);
            }
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0u64);
    from.take(length).read_to_end(&mut body).ok()?;
    Some(body)
}

fn backend(
    shared: &Shared,
    method: &str,
    target: &str,
    headers: &HashMap<String, String>,
    body: &[u8],
) -> Option<(String, String, Vec<u8>)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", headers.get("content-type").map_or("", String::as_str))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", headers.get("git-protocol").map_or("", String::as_str))
        .env("REMOTE_USER", "tester")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let body = body.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().ok()?.stdout;
    let _ = writer.join();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let status = value("Status:").unwrap_or_else(|| "200 OK".to_owned());
    Some((status, value("Content-Type:").unwrap_or_default(), output[end + 4..].to_vec()))
}
