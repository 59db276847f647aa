//! Talks over `http://` and `https://` (gitprotocol-http): each question stands alone, and the
//! connection is kept for the next one.

use std::{
    fs,
    io::{self, Cursor, Read},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ureq::{
    Agent, Proxy,
    http::{Response, StatusCode},
    tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
};

use super::{
    config::{Config, HttpSettings},
    credentials::Credentials,
    pkt::{self, Packet},
    place::{Place, WebAddress},
    transport::{self, Service, Session, Transport},
};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// How often a first question may be sent elsewhere.
const MOST_REDIRECTS: usize = 5;

/// How long a connection is kept that nobody uses: less than servers keep it.
const IDLE: Duration = Duration::from_secs(50);

/// A server that is asked over HTTP.
#[derive(Debug)]
pub(super) struct HttpTransport {
    config: Config,
    remote: String,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<Arc<Where>>>,
}

/// Where the server is, and what it is shown.
#[derive(Debug)]
struct Where {
    address: WebAddress,
    settings: HttpSettings,
    agent: Agent,
    credentials: Mutex<Option<Credentials>>,
    /// What the server said the time was, in seconds, and this machine's wall clock then, in milliseconds.
    time: Mutex<Option<(i64, u64)>>,
}

impl HttpTransport {
    pub(super) fn new(
        config: &Config,
        remote: &str,
        address: WebAddress,
        clock: Arc<dyn Clock>,
    ) -> Result<HttpTransport> {
        let state = Arc::new(Mutex::new(Arc::new(Where::new(config, remote, address)?)));
        Ok(HttpTransport { config: config.clone(), remote: remote.to_owned(), clock, state })
    }
}

impl Where {
    fn new(config: &Config, remote: &str, address: WebAddress) -> Result<Where> {
        let settings = config.http(remote, &address);
        let agent = agent(&settings, &address)?;
        let credentials = Mutex::new(Credentials::known(&address));
        Ok(Where { address, settings, agent, credentials, time: Mutex::default() })
    }

    fn credentials(&self) -> Option<Credentials> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_credentials(&self, credentials: Option<Credentials>) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// Whether the configuration's own headers say who asks.
    fn is_authorized_by_headers(&self) -> bool {
        self.settings.headers.iter().any(|header| header.to_ascii_lowercase().starts_with("authorization:"))
    }

    fn send(&self, asked: &Asked<'_>, time: Duration) -> Result<Response<ureq::Body>, ureq::Error> {
        let url = format!("{}/{}", self.address, asked.path);
        let mut headers: Vec<(&str, String)> = Vec::new();
        for header in &self.settings.headers {
            if let Some((name, value)) = header.split_once(':') {
                headers.push((name.trim(), value.trim().to_owned()));
            }
        }
        if let Some(credentials) = self.credentials().filter(|_| !self.is_authorized_by_headers()) {
            headers.push(("Authorization", credentials.basic()));
        }
        if asked.service == Service::UploadPack {
            headers.push(("Git-Protocol", "version=2".to_owned()));
        }
        match asked.body {
            None => {
                let mut request = self.agent.get(url).header("Cache-Control", "no-cache");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                request.config().timeout_global(Some(time)).build().call()
            }
            Some(body) => {
                let kind = |what: &str| format!("application/x-{}-{what}", asked.service.name());
                let mut request =
                    self.agent.post(url).header("Content-Type", kind("request")).header("Accept", kind("result"));
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                request.config().timeout_global(Some(time)).build().send(body)
            }
        }
    }

    fn failed(&self, error: ureq::Error) -> Error {
        let place = &self.address;
        let message = match error {
            // What is wrong with a certificate may come as an error of the stream.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData && is_of_tls(&error) => {
                return untrusted(place, &error.to_string());
            }
            ureq::Error::Io(error) => return transport::cut(place, error),
            ureq::Error::Timeout(_) => return transport::cut(place, io::ErrorKind::TimedOut.into()),
            ureq::Error::HostNotFound => {
                format!("the host of {place} isn't found; check its name, the proxy, and the network")
            }
            ureq::Error::ConnectionFailed => format!("nobody answers at {place}; see whether the server runs"),
            ureq::Error::ConnectProxyFailed(_) => format!("the proxy doesn't connect to {place}; check http.proxy"),
            ureq::Error::Tls(why) => return untrusted(place, why),
            ureq::Error::Rustls(why) => return untrusted(place, &why.to_string()),
            ureq::Error::BodyExceedsLimit(_) => format!("{place} sends more than anybody asked for"),
            // Nothing of these tells a secret: they name no header and no address.
            other => format!("the talk with {place} failed: {other}"),
        };
        Error::new(ErrorCode::Io, format!("{message}; try again"))
    }
}

/// Whether it says so itself: the type of the error inside belongs to a library that isn't used directly.
fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string().contains("certificate"))
}

fn untrusted(place: &WebAddress, why: &str) -> Error {
    let message = format!(
        "the certificate of {place} isn't accepted: {why}; if its authority is your own, name its certificate in http.sslCAInfo"
    );
    Error::new(ErrorCode::PermissionDenied, message)
}

/// One question.
struct Asked<'a> {
    service: Service,
    path: &'a str,
    body: Option<&'a [u8]>,
}

fn agent(settings: &HttpSettings, address: &WebAddress) -> Result<Agent> {
    let mut tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
    if let Some(path) = &settings.ca {
        let authorities: Vec<Certificate<'static>> = items(path, "http.sslCAInfo")?
            .into_iter()
            .filter_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            })
            .collect();
        tls = tls.root_certs(authorities.into());
    }
    if let Some(path) = &settings.cert {
        let mut chain = Vec::new();
        let mut key = None;
        let mut all = items(path, "http.sslCert")?;
        if let Some(path) = &settings.key {
            all.extend(items(path, "http.sslKey")?);
        }
        for item in all {
            match item {
                PemItem::Certificate(certificate) => chain.push(certificate),
                PemItem::PrivateKey(private) => key = Some(private),
                _ => {}
            }
        }
        let key = key.ok_or_else(|| {
            Error::new(ErrorCode::InvalidArgument, "http.sslCert is set, but there is no private key; set http.sslKey")
        })?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    if !settings.verify {
        tracing::warn!(remote = %address, "the server's certificate isn't checked (http.sslVerify)");
        tls = tls.disable_verification(true);
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .proxy(proxy(settings, address)?)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_age(IDLE)
        .max_idle_connections_per_host(4)
        // Some servers speak Git's protocol only with what calls itself that.
        .user_agent(concat!("git/gitlock-", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.new_agent())
}

fn items(path: &Path, key: &str) -> Result<Vec<PemItem<'static>>> {
    let bytes = fs::read(path).map_err(|error| Error::io(format_args!("{key} can't be read"), error))?;
    let items: Vec<PemItem<'static>> = parse_pem(&bytes).filter_map(std::result::Result::ok).collect();
    if items.is_empty() {
        let message = format!("{key} ({}) holds no certificate or key in PEM form", path.display());
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    Ok(items)
}

/// The proxy of the configuration, or of the environment.
fn proxy(settings: &HttpSettings, address: &WebAddress) -> Result<Option<Proxy>> {
    let variable =
        |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|url| !url.is_empty()));
    let url = match &settings.proxy {
        Some(url) => Some(url.clone()).filter(|url| !url.is_empty()),
        None if is_exempt(&variable(&["no_proxy", "NO_PROXY"]).unwrap_or_default(), &address.host) => None,
        None if address.https => variable(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        None => variable(&["http_proxy", "all_proxy", "ALL_PROXY"]),
    };
    let Some(url) = url else { return Ok(None) };
    // The address may hold a password, so it isn't shown.
    Proxy::new(&url).map(Some).map_err(|_| {
        Error::new(
            ErrorCode::InvalidArgument,
            "the proxy's address can't be read; check http.proxy and the variables *_proxy",
        )
    })
}

/// Whether no proxy is to be used for a host.
fn is_exempt(list: &str, host: &str) -> bool {
    list.split([',', ' ']).map(|entry| entry.trim().trim_start_matches('.')).filter(|entry| !entry.is_empty()).any(
        |entry| entry == "*" || entry == host || host.strip_suffix(entry).is_some_and(|before| before.ends_with('.')),
    )
}

impl Transport for HttpTransport {
    fn connect(&self, service: Service, time: Duration) -> Result<Box<dyn Session>> {
        let deadline = self.clock.boot_ms().saturating_add(clock::millis(time));
        Ok(Box::new(HttpSession {
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            shared: self.state.clone(),
            config: self.config.clone(),
            remote: self.remote.clone(),
            service,
            deadline,
            clock: self.clock.clone(),
            answer: Cursor::default(),
        }))
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn clock_difference(&self) -> Option<i64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (seconds, wall) = (*state.time.lock().unwrap_or_else(PoisonError::into_inner))?;
        // It tells whole seconds; half of one is right on the average.
        Some(seconds.saturating_mul(1_000).saturating_add(500).saturating_sub(i64::try_from(wall).ok()?))
    }
}

struct HttpSession {
    state: Arc<Where>,
    config: Config,
    remote: String,
    service: Service,
    deadline: u64,
    clock: Arc<dyn Clock>,
    answer: Cursor<Vec<u8>>,
    /// For those who come later: the server may have moved.
    shared: Arc<Mutex<Arc<Where>>>,
}

impl HttpSession {
    /// Asks once, and again with credentials if there have to be some.
    fn exchange(&mut self, path: &str, body: Option<&[u8]>) -> Result<Response<ureq::Body>> {
        let asked = Asked { service: self.service, path, body };
        for attempt in 0..2 {
            let left = self.deadline.saturating_sub(self.clock.boot_ms());
            if left == 0 {
                return Err(transport::cut(&self.state.address, io::ErrorKind::TimedOut.into()));
            }
            let response =
                self.state.send(&asked, Duration::from_millis(left)).map_err(|error| self.state.failed(error))?;
            self.note_time(&response);
            if response.status() != StatusCode::UNAUTHORIZED {
                if let Some(known) =
                    self.state.credentials().filter(|known| known.helped && response.status().is_success())
                {
                    known.report(&self.config.base, &self.state.address, true);
                    self.state.set_credentials(Some(Credentials { helped: false, ..known }));
                }
                return Ok(response);
            }
            if let Some(refused) = self.state.credentials() {
                refused.report(&self.config.base, &self.state.address, false);
                self.state.set_credentials(None);
                if attempt > 0 {
                    break;
                }
            }
            match Credentials::fill(&self.config.base, &self.state.address)
                .filter(|_| attempt == 0 && !self.state.is_authorized_by_headers())
            {
                Some(found) => self.state.set_credentials(Some(found)),
                None => break,
            }
        }
        let message = format!(
            "{} asks who you are, and no credentials that it accepts were found; set up a credential helper, http.extraHeader, \
             or GIT_LOCK_REMOTE_TOKEN",
            self.state.address
        );
        Err(Error::new(ErrorCode::PermissionDenied, message))
    }

    fn note_time(&self, response: &Response<ureq::Body>) {
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| gix::date::parse(&date.replace("GMT", "+0000"), None).ok());
        if let Some(date) = date {
            let now = self.clock.now().wall;
            *self.state.time.lock().unwrap_or_else(PoisonError::into_inner) = Some((date.seconds, now));
        }
    }

    fn read(&self, mut response: Response<ureq::Body>) -> Result<Vec<u8>> {
        let status = response.status();
        let body =
            response.body_mut().with_config().limit(LONGEST).read_to_vec().map_err(|error| self.state.failed(error))?;
        if status.is_success() {
            return Ok(body);
        }
        let words = if is_text(&response) { transport::plain(&String::from_utf8_lossy(&body)) } else { String::new() };
        let words = if words.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {words}") };
        let place = &self.state.address;
        let error = match status.as_u16() {
            403 => Error::new(
                ErrorCode::PermissionDenied,
                format!(
                    "{place} doesn't allow {} to this user ({words}); locks are pushed: ask for the right to push, or enable it \
                     (http.receivepack)",
                    self.service.name()
                ),
            ),
            404 | 410 => Error::new(
                ErrorCode::NotARepository,
                format!("there is no repository at {place}, or it isn't shown to this user ({words}); check the URL"),
            ),
            413 => Error::new(ErrorCode::StorageFull, format!("{place} takes no push of this size ({words})")),
            429 => {
                Error::new(ErrorCode::RepositoryBusy, format!("{place} was asked too often ({words}); try again later"))
            }
            500..=599 => Error::new(ErrorCode::Io, format!("{place} has trouble ({words}); try again later")),
            300..=399 => {
                Error::new(ErrorCode::Unsupported, format!("{place} has moved ({words}); use its new address"))
            }
            _ => Error::new(
                ErrorCode::Unsupported,
                format!("{place} doesn't serve Git repositories ({words}); check the URL"),
            ),
        };
        Err(error)
    }

    /// Follows a first question to where the server sent it.
    fn follow(&mut self, response: &Response<ureq::Body>, query: &str) -> Result<bool> {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let Some(location) = location.filter(|_| response.status().is_redirection()) else { return Ok(false) };
        let refuse = || {
            let place = &self.state.address;
            Error::new(
                ErrorCode::Unsupported,
                format!("{place} sends elsewhere in a way that can't be followed; use its new address"),
            )
        };
        let base = location.strip_suffix(&format!("/{query}")).ok_or_else(refuse)?;
        let address = if base.starts_with('/') {
            WebAddress { path: base.to_owned(), ..self.state.address.clone() }
        } else {
            match Place::parse(base).map_err(|_| refuse())? {
                Place::Http(address) if address.https || !self.state.address.https => address,
                _ => return Err(refuse()),
            }
        };
        // What is shown there is what the configuration says of that address.
        let elsewhere = address.host != self.state.address.host;
        self.state = Arc::new(Where::new(&self.config, &self.remote, address)?);
        if elsewhere {
            // A token of the environment is meant for the host that was named.
            self.state.set_credentials(None);
        }
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.state.clone();
        Ok(true)
    }
}

fn is_text(response: &Response<ureq::Body>) -> bool {
    response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

impl Session for HttpSession {
    fn greeting(&mut self) -> Result<&mut dyn Read> {
        let query = format!("info/refs?service={}", self.service.name());
        let mut response = self.exchange(&query, None)?;
        for _ in 0..MOST_REDIRECTS {
            if !self.follow(&response, &query)? {
                break;
            }
            response = self.exchange(&query, None)?;
        }
        let kind = response.headers().get("content-type").map(|kind| kind.as_bytes().to_vec()).unwrap_or_default();
        let body = self.read(response)?;
        if kind != format!("application/x-{}-advertisement", self.service.name()).as_bytes() {
            let message = format!(
                "{} doesn't speak Git's smart protocol; check the URL, or serve it with git http-backend",
                self.state.address
            );
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        // The service is named first, in version 0 and 1.
        let mut rest = &*body;
        if let Ok(Packet::Data(line)) = pkt::read(&mut rest)
            && line.starts_with(b"# service=")
            && pkt::read(&mut rest).is_ok_and(|packet| packet == Packet::Flush)
        {
            self.answer = Cursor::new(rest.to_vec());
        } else {
            self.answer = Cursor::new(body);
        }
        Ok(&mut self.answer)
    }

    fn ask(&mut self, request: &[u8]) -> Result<&mut dyn Read> {
        let response = self.exchange(self.service.name(), Some(request))?;
        self.answer = Cursor::new(self.read(response)?);
        Ok(&mut self.answer)
    }

    fn trouble(&mut self, error: io::Error) -> Error {
        transport::cut(&self.state.address, error)
    }
}

#[cfg(test)]
mod tests {
    use super::is_exempt;

    #[test]
    fn hosts_without_a_proxy() {
        let list = "localhost, .example.com,10.0.0.1";
        assert!(is_exempt(list, "localhost") && is_exempt(list, "a.example.com") && is_exempt(list, "example.com"));
        assert!(!is_exempt(list, "notexample.com") && !is_exempt("", "a") && is_exempt("*", "a"));
    }
}
