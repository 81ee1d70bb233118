//! What a container looks like from outside: its ports, its answers, its processes, what it writes.

use super::check::{Check, Http};
use super::container::Running;
use super::http::{Answer, ask};
use super::report::Finding;
use super::subject::Files;
use super::value::Port;
use super::{Error, Result, config};
use crate::bundle::users;
use crate::layer;
use crate::run::State;
use crate::sys::process::setns;
use crate::sys::userns::UserIds;
use crate::tree::{Kind, TreePath};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take.
const REQUEST: Duration = Duration::from_secs(5);
/// So many written paths are told of.
const MOST_TOLD: usize = 20;

/// A connection that is read from until a point in time: one that says a byte now and then ends, too.
struct Until {
    stream: TcpStream,
    end: Instant,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

impl Write for Until {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Something that only a container that runs has.
fn stopped(wanted: String) -> Vec<Finding> {
    vec![Finding::new(wanted, "the container does not run")]
}

/// `port`: the kernel's list of sockets in the container's network namespace (proc(5), `/proc/net/tcp`).
pub(super) fn port(check: &Check, running: &Running) -> Vec<Finding> {
    let Some(port) = &check.port else { return Vec::new() };
    let absent = check.absent == Some(true);
    let wanted = if absent { format!("nothing on port {port}") } else { format!("something on port {port}") };
    let Some(pid) = running.state().and_then(|s| Some(s.process?.pid)) else { return stopped(wanted) };
    let protocol = if port.udp { "udp" } else { "tcp" };
    let mut ports = BTreeSet::new();
    for family in ["", "6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{protocol}{family}"));
        ports.extend(listening(&table.unwrap_or_default(), port.udp));
    }
    if ports.contains(&port.number) != absent {
        return Vec::new();
    }
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let found = if list.is_empty() { "none".to_string() } else { list.join(", ") };
    vec![Finding::new(wanted, format!("{protocol} ports: {found}"))]
}

/// The local ports of a table that wait for others: of TCP in the state LISTEN, of UDP without a peer.
fn listening(table: &str, udp: bool) -> impl Iterator<Item = u16> {
    let state = if udp { "07" } else { "0A" };
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, found) = (fields.next()?, fields.next()?, fields.next()?);
        let port = local.rsplit_once(':').filter(|_| found == state)?.1;
        u16::from_str_radix(port, 16).ok()
    })
}

/// Does `work` in the container's network namespace, on a thread of its own, which is there for that
/// alone.
fn in_network<T: Send>(state: &State, work: impl FnOnce() -> T + Send) -> Result<Option<T>> {
    let Some(process) = state.pidfd() else { return Ok(None) };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            match setns(process.as_fd(), libc::CLONE_NEWNET, "net") {
                // It has ended since.
                Err(e) if e.errno() == Some(Errno::SRCH) => Ok(None),
                joined => Ok(joined.map(|()| Some(work()))?),
            }
        });
        thread.join().map_err(|_| Error::Panic)?
    })
}

/// `http`.
pub(super) fn http(request: &Http, running: &Running, within: Duration) -> Result<Vec<Finding>> {
    let Http { method, path, port, .. } = request;
    let wanted = format!("an answer to {method} :{port}{path}");
    let Some(state) = running.state() else { return Ok(stopped(wanted)) };
    let limit = within.clamp(Duration::from_millis(100), REQUEST);
    let answered = in_network(&state, || {
        let places = [SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), (Ipv6Addr::LOCALHOST, *port).into()];
        let tried = places.iter().map(|place| TcpStream::connect_timeout(place, limit));
        // The first error says more: there may be no IPv6.
        let stream =
            tried.reduce(std::result::Result::or).unwrap_or_else(|| Err(ErrorKind::NotFound.into()))?;
        stream.set_write_timeout(Some(limit))?;
        ask(Until { stream, end: Instant::now() + limit }, request)
    })?;
    Ok(match answered {
        None => stopped(wanted),
        Some(Err(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            vec![Finding::new(wanted, "no answer in time")]
        }
        Some(Err(e)) => vec![Finding::new(wanted, e.to_string())],
        Some(Ok(answer)) => compare(request, &answer),
    })
}

fn compare(request: &Http, answer: &Answer) -> Vec<Finding> {
    let mut findings = Vec::new();
    if answer.status != request.status {
        findings.push(Finding::new(format!("status {}", request.status), answer.status.to_string()));
    }
    let wanted = request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    findings.extend(config::texts("header", &wanted.collect(), &answer.headers));
    for pattern in request.body.iter().flat_map(|p| p.iter()).filter(|p| !p.found_in(&answer.body)) {
        let start: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        findings.push(Finding::new(format!("a match of {pattern} in the body"), start));
    }
    findings
}

/// `process`: by the name of the kernel or of the program's file.
pub(super) fn process(check: &Check, running: &Running) -> Vec<Finding> {
    let name = check.process.as_deref().unwrap_or_default();
    let owner = check.as_.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
    let mut found = Vec::new();
    for pid in running.processes() {
        let Some((names, uid)) = look(pid) else { continue };
        if names.iter().any(|n| n == name) {
            found.push(UserIds::of(pid).inside(uid, 0).0);
        }
    }
    let users: Vec<String> = found.iter().map(|uid| format!("one as {uid}")).collect();
    match (check.absent == Some(true), found.is_empty()) {
        (true, false) => return vec![Finding::new(format!("no process {name}"), users.join(", "))],
        (false, true) => return vec![Finding::new(format!("a process {name}{owner}"), "none")],
        (true, true) => return Vec::new(),
        (false, false) => {}
    }
    let Some(user) = &check.as_ else { return Vec::new() };
    match users::of_root(&running.inside.bundle.rootfs(), user) {
        Ok(ids) if found.contains(&ids.uid) => Vec::new(),
        Ok(ids) => vec![Finding::new(format!("{name} as {user} ({})", ids.uid), users.join(", "))],
        Err(e) => vec![Finding::new(format!("{name} as {user}"), e.to_string())],
    }
}

/// The names of a process and its effective user.
fn look(pid: i32) -> Option<([String; 2], u32)> {
    let read = |file| std::fs::read(format!("/proc/{pid}/{file}")).ok();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let comm = text(read("comm")?).trim_end().to_string();
    let program = text(read("cmdline")?.split(|b| *b == 0).next()?.to_vec());
    let program = program.rsplit('/').next().unwrap_or_default().to_string();
    let status = text(read("status")?);
    let ids = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    Some(([comm, program], ids.split_whitespace().nth(1)?.parse().ok()?))
}

/// `log`.
pub(super) fn log(check: &Check, running: &Running) -> Vec<Finding> {
    let log = running.log.bytes();
    let found = || {
        let text = String::from_utf8_lossy(&log);
        let last = text.lines().last().unwrap_or("nothing").chars().take(200).collect::<String>();
        format!("last: {last}")
    };
    let missing = check.log.iter().flat_map(|p| p.iter()).filter(|p| !p.found_in(&log));
    let mut findings: Vec<_> =
        missing.map(|p| Finding::new(format!("a match of {p} in the log"), found())).collect();
    let there = check.lacks.iter().flat_map(|p| p.iter()).filter(|p| p.found_in(&log));
    findings.extend(there.map(|p| Finding::new(format!("no match of {p} in the log"), "one")));
    findings
}

/// `writes-only`: the upper directory of the overlay has what was written. What the runner itself put
/// there to mount on does not count.
pub(super) fn writes_only(check: &Check, running: &Running, files: &Files) -> Result<Vec<Finding>> {
    let Some(allowed) = &check.writes_only else { return Ok(Vec::new()) };
    let upper = running.inside.bundle.path().join("upper");
    if !upper.is_dir() {
        let driver = running.inside.bundle.driver();
        return Err(Error::NoUpper(driver.map_or_else(|| "none".to_string(), |d| d.to_string())));
    }
    let mounts = mount_points(&running.inside.bundle.path().join("config.json"))?;
    let written = layer::scan(&upper, None, None)?;
    let is_new = |path: &TreePath, kind: &Kind| {
        let directory = |k: &Kind| *k == Kind::Directory;
        !(directory(kind) && files.tree.get(path).is_some_and(|n| directory(&n.kind)))
    };
    let wrong = written.iter().filter(|(path, node)| {
        let name = [b"/", path.as_bytes()].concat();
        let allowed = allowed.iter().any(|glob| glob.matches(&name) || below(glob, &name, &node.kind));
        !path.is_root() && is_new(path, &node.kind) && !allowed && !mounts.iter().any(|m| m.is_within(path))
    });
    let findings = wrong.map(|(path, node)| {
        let found = match node.kind {
            Kind::Char(0, 0) => "it is removed",
            Kind::Directory => "a directory is made",
            _ => "it is written",
        };
        Finding::new("only the declared paths written", found).at(path)
    });
    Ok(findings.take(MOST_TOLD).collect())
}

/// Whether the directory `name` is the one that the glob has everything of: `/var/log` of `/var/log/**`.
fn below(glob: &super::value::Glob, name: &[u8], kind: &Kind) -> bool {
    *kind == Kind::Directory && glob.matches(&[name, b"/x"].concat())
}

/// What is mounted in the container, by its config.json.
fn mount_points(config: &Path) -> Result<Vec<TreePath>> {
    let spec = oci_spec::runtime::Spec::load(config).map_err(crate::bundle::Error::Spec)?;
    let points = spec.mounts().iter().flatten();
    Ok(points
        .filter_map(|m| TreePath::parse_link(m.destination().as_os_str().as_encoded_bytes()).ok())
        .collect())
}

/// `stops-within`.
pub(super) fn stops_within(check: &Check, running: &Running) -> Result<Vec<Finding>> {
    let Some(limit) = &check.stops_within else { return Ok(Vec::new()) };
    let wanted = format!("an end within {limit} of its stop signal");
    if running.state().is_none() {
        return Ok(stopped(wanted));
    }
    let begun = Instant::now();
    running.container()?.stop(None, limit.0)?;
    let late = begun.elapsed() >= limit.0;
    Ok(if late { vec![Finding::new(wanted, "it had to be killed")] } else { Vec::new() })
}

/// The port of a request, for reports.
impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, if self.udp { "udp" } else { "tcp" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000\n\
            2: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0\n broken\n";
        assert_eq!(listening(tcp, false).collect::<Vec<_>>(), [80, 443]);
        let udp = "head\n 0: 00000000:0035 00000000:0000 07 0\n";
        assert_eq!(listening(udp, true).collect::<Vec<_>>(), [53]);
    }
}
