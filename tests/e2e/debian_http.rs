//! An archive behind http: downloads that break off, go on, and never become whole.

use crate::common::archive::{Archive, bookworm};
use crate::common::proxy::{Fault, Proxy, Request, status};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Serves the files below `root`, ranges too, until the process ends; gives the port.
pub fn serve(root: PathBuf) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is no failure of the server.
            let _ = answer(stream, &root);
        }
    });
    port
}

fn answer(mut stream: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let (mut path, mut from) = (String::new(), 0);
    while let Some(line) = lines.next().transpose()?.filter(|l| !l.is_empty()) {
        if let Some(rest) = line.strip_prefix("GET ") {
            // A proxy is told the whole address.
            let target = rest.split(' ').next().unwrap_or_default();
            path = target.trim_start_matches("http://mirror.test").trim_start_matches('/').to_string();
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    let Ok(mut file) = File::open(root.join(path)) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(from))?;
    let mut body = Vec::new();
    file.read_to_end(&mut body)?;
    let (length, last) = (body.len(), size - 1);
    let head = match from {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{size}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        ),
    };
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

fn archive() -> Archive {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("", Some("good"));
    archive
}

fn proxy(archive: &Archive, fault: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Proxy {
    Proxy::start(serve(archive.at("")), fault)
}

/// Makes the image through the proxy; without a shell in it, it fails with 10 when all came.
fn fails(archive: &Archive, code: i32, proxy: &Proxy) -> String {
    archive.fails_with(code, &archive.args_from(&format!("http://{}", proxy.host()), "a"))
}

#[test]
fn a_truncated_body_is_gone_on_with() {
    let archive = archive();
    let proxy = proxy(&archive, |r| match (r.path.as_str(), r.before) {
        ("/a.deb", 0) => Fault::Truncate(100),
        ("/a.deb", 1) => Fault::Reset(50),
        _ => Fault::None,
    });
    assert!(fails(&archive, 10, &proxy).contains("execve in the root"));
    let ranges: Vec<_> = proxy.requests("/a.deb").into_iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some("bytes=100-".to_string()), Some("bytes=150-".to_string())]);
}

#[test]
fn a_server_without_ranges_starts_again() {
    let archive = archive();
    let proxy = proxy(&archive, |r| match (r.path.as_str(), r.before) {
        ("/a.deb", 0) => Fault::Truncate(100),
        ("/a.deb", _) => Fault::IgnoreRange,
        _ => Fault::None,
    });
    assert!(fails(&archive, 10, &proxy).contains("execve in the root"));
    assert_eq!(proxy.requests("/a.deb").len(), 2);
}

#[test]
fn a_body_that_never_becomes_whole_is_an_error_and_the_next_command_goes_on() {
    let archive = archive();
    let short = proxy(&archive, |r| if r.path == "/a.deb" { Fault::Truncate(10) } else { Fault::None });
    assert!(fails(&archive, 6, &short).contains("a.deb"));
    let tries = short.requests("/a.deb").len();
    let whole = proxy(&archive, |_| Fault::None);
    assert!(fails(&archive, 10, &whole).contains("execve in the root"));
    let ranges: Vec<_> = whole.requests("/a.deb").into_iter().map(|r| r.range).collect();
    assert_eq!(ranges, [Some(format!("bytes={}-", 10 * tries))]);
}

#[test]
fn statuses() {
    let archive = archive();
    let busy = proxy(&archive, |r| match (r.path.as_str(), r.before) {
        ("/a.deb" | "/dists/bookworm/InRelease", 0) => status("503 Service Unavailable", &[]),
        _ => Fault::None,
    });
    assert!(fails(&archive, 10, &busy).contains("execve in the root"));
    std::fs::remove_dir_all(archive.store.path().join("shipimg/packages")).unwrap();
    let gone = proxy(&archive, |r| match r.path.as_str() {
        "/a.deb" => status("404 Not Found", &[]),
        _ => Fault::None,
    });
    assert!(fails(&archive, 6, &gone).contains("a.deb: the server answered 404"));
    assert_eq!(gone.requests("/a.deb").len(), 1);
    let corrupt = proxy(&archive, |r| if r.path == "/a.deb" { Fault::Corrupt } else { Fault::None });
    assert!(fails(&archive, 9, &corrupt).contains("a.deb is not what the archive promises"));
}
