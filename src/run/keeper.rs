//! The keeper of a container that nobody waits for: the process that `run --detach` leaves.
//!
//! It holds the container's streams, writes what is printed into the log, joins those who
//! attach, checks the container's health and remembers how it ended. The container ends with
//! it. It is a copy of the command's process, in a session of its own; the command itself ends
//! when the container has begun, or says why it has not.

use super::Result;
use super::attach::{Packet, Socket};
use super::create::{Launch, pipe, read_all};
use super::health::Check;
use super::lifecycle::{Held, Runtime};
use super::log::{Bounds, Log, Stream};
use super::state::{ProcessId, State};
use super::sync::{decode, encode};
use super::terminal::CHUNK;
use super::watch::Duty;
use crate::sys::{Call, process, pty};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

/// How much waits for a client that does not read, in bytes; one that reads still less is let go.
const PATIENCE: usize = 1 << 20;
/// How many chunks are read from one stream before the others get their turn.
const TURN: usize = 16;
/// How long a client may take to read the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The exit code of a container that could not be waited for.
const FAILED: u8 = 125;
/// What the keeper reports when the container has begun.
const BEGUN: &[u8] = b"+";

/// How a container is kept.
#[derive(Debug, Default, Clone, Copy)]
pub struct Keep {
    /// How much of what it prints is kept.
    pub log: Bounds,
    /// Whether standard input stays open for those who attach.
    pub interactive: bool,
    /// Whether it is deleted at its end.
    pub remove: bool,
}

/// The standard streams that a program without a caller has.
pub type Streams = [OwnedFd; 3];

impl Launch {
    /// Creates the container and starts it, with a keeper; comes back when it has begun.
    ///
    /// # Errors
    /// As [`Self::run`]; nothing is left then.
    pub fn detach(&self, runtime: &Runtime, held: Option<Held>, keep: Keep) -> Result<()> {
        let (read, write) = pipe()?;
        if process::fork()?.is_some() {
            // Its copy is the keeper's.
            held.map(Held::keep);
            drop(write);
            return match read_all(&read)?.as_slice() {
                BEGUN => Ok(()),
                report => Err(decode(report)),
            };
        }
        drop(read);
        let mut report = Some(write);
        let kept = self.keep(runtime, held, keep, &mut report);
        if let (Err(e), Some(report)) = (&kept, &report) {
            let _ = rustix::io::write(report, &encode(e));
        }
        process::exit_now(i32::from(kept.is_err()))
    }

    /// Closes `report` when the container has begun.
    fn keep(
        &self,
        runtime: &Runtime,
        held: Option<Held>,
        keep: Keep,
        report: &mut Option<OwnedFd>,
    ) -> Result<()> {
        rustix::process::setsid().call(|| "setsid".to_string())?;
        process::close_inherited()?;
        let held = self.hold(runtime, held)?;
        let prepared = self.prepare(runtime)?;
        let dir = held.container().dir().to_path_buf();
        let mut streams = Kept::new(&dir, keep)?;
        let terminal = prepared.spec.process.as_ref().is_some_and(|p| p.terminal);
        let theirs = if terminal { None } else { Some(streams.pipes(keep.interactive)?) };
        let mut begun = self.begin(&prepared, held, theirs, keep.remove)?;
        let (master, health) = (begun.master.take(), begun.health.take());
        let result = (|| {
            master.map_or(Ok(()), |master| streams.terminal(master))?;
            let mut state = State::read(&dir)?;
            state.keeper = Some(ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0))?);
            state.write(&dir)?;
            let mut health = Check::of(begun.container(), health)?;
            leave()?;
            if let Some(report) = report.take() {
                rustix::io::write(&report, BEGUN).call(|| "write(report)".to_string())?;
            }
            let mut duties: Vec<&mut dyn Duty> = vec![&mut streams];
            duties.extend(health.as_mut().map(|d| d as &mut dyn Duty));
            begun.wait(self.timeout, &mut duties)
        })();
        let closed = begun.close(result);
        streams.close(closed.as_ref().map_or(FAILED, |exit| exit.code()));
        closed.map(drop)
    }
}

/// Lets go of what the command's caller waits for or wants to unmount.
fn leave() -> Result<()> {
    let null = process::null()?;
    process::set_streams([null.as_fd(); 3])?;
    Ok(rustix::process::chdir("/").call(|| "chdir(/)".to_string())?)
}

/// The streams of a container, its log, and those who look.
struct Kept {
    outputs: Vec<(Stream, OwnedFd)>,
    input: Option<OwnedFd>,
    typed: VecDeque<u8>,
    log: Log,
    door: Socket,
    clients: Vec<Client>,
    terminal: bool,
}

struct Client {
    socket: Socket,
    looks: bool,
    queue: VecDeque<Vec<u8>>,
}

impl Kept {
    fn new(dir: &Path, keep: Keep) -> Result<Self> {
        Ok(Self {
            outputs: Vec::new(),
            input: None,
            typed: VecDeque::new(),
            log: Log::begin(dir, keep.log)?,
            door: Socket::listen(dir)?,
            clients: Vec::new(),
            terminal: false,
        })
    }

    /// Pipes; gives the program's ends.
    fn pipes(&mut self, interactive: bool) -> Result<Streams> {
        let mut output = |stream| -> Result<OwnedFd> {
            let (read, write) = pipe()?;
            rustix::io::ioctl_fionbio(&read, true).call(|| "ioctl(FIONBIO)".to_string())?;
            self.outputs.push((stream, read));
            Ok(write)
        };
        let (stdout, stderr) = (output(Stream::Stdout)?, output(Stream::Stderr)?);
        if !interactive {
            return Ok([process::null()?, stdout, stderr]);
        }
        let (read, write) = pipe()?;
        rustix::io::ioctl_fionbio(&write, true).call(|| "ioctl(FIONBIO)".to_string())?;
        self.input = Some(write);
        Ok([read, stdout, stderr])
    }

    /// The terminal that `master` drives.
    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl(FIONBIO)".to_string())?;
        self.input = Some(master.try_clone().call(|| "dup".to_string())?);
        self.outputs.push((Stream::Stdout, master));
        self.terminal = true;
        Ok(())
    }

    /// Reads what was printed, for so many chunks.
    fn print(&mut self, turns: usize) {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.retain(|(stream, fd)| {
            let mut buffer = [0u8; CHUNK];
            for _ in 0..turns {
                match rustix::io::read(fd, &mut buffer) {
                    Ok(n) if n > 0 => self.printed(*stream, &buffer[..n]),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    _ => return false,
                }
            }
            true
        });
        self.outputs = outputs;
    }

    fn printed(&mut self, stream: Stream, bytes: &[u8]) {
        self.log.add(stream, bytes);
        let packet = Packet::Output(stream, bytes.to_vec()).bytes();
        self.clients.iter_mut().filter(|c| c.looks).for_each(|c| c.queue.push_back(packet.clone()));
    }

    fn come(&mut self) {
        while let Some(socket) = self.door.accept() {
            self.clients.push(Client { socket, looks: false, queue: VecDeque::new() });
        }
    }

    /// Takes what the clients send; those who are gone are forgotten.
    fn listen(&mut self) {
        let mut clients = std::mem::take(&mut self.clients);
        clients.retain_mut(|client| {
            // What was typed is to be read by the program first.
            while self.typed.len() < PATIENCE {
                match client.socket.receive() {
                    Ok(Some(packet)) => self.take(client, packet),
                    Err(Errno::AGAIN) => break,
                    _ => return false,
                }
            }
            true
        });
        self.clients = clients;
    }

    fn take(&mut self, client: &mut Client, packet: Packet) {
        match packet {
            Packet::Look => {
                client.looks = true;
                client.queue.push_back(Packet::Terminal(self.terminal).bytes());
            }
            Packet::Input(bytes) if self.input.is_some() => self.typed.extend(bytes),
            Packet::Size(columns, rows) if self.terminal => {
                if let Some(master) = &self.input {
                    let _ = pty::resize(master, columns, rows);
                }
            }
            _ => {}
        }
    }

    /// Passes on what was typed, and to the clients what waits for them.
    fn pass_on(&mut self) {
        if let Some(input) = &self.input {
            let (next, _) = self.typed.as_slices();
            match rustix::io::write(input, next) {
                Ok(n) => drop(self.typed.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.typed.clear(),
            }
        }
        self.clients.retain_mut(|client| {
            while let Some(packet) = client.queue.front() {
                match client.socket.send(packet) {
                    Ok(()) => drop(client.queue.pop_front()),
                    Err(Errno::AGAIN) => return client.queue.len() * CHUNK <= PATIENCE,
                    Err(_) => return false,
                }
            }
            true
        });
    }

    /// Tells the clients how it ended.
    fn close(&mut self, code: u8) {
        self.come();
        for client in &mut self.clients {
            let _ = rustix::io::ioctl_fionbio(&client.socket, false);
            let _ = set_socket_timeout(&client.socket, Timeout::Send, Some(LAST_WORDS));
            client.queue.push_back(Packet::End(code).bytes());
            while let Some(packet) = client.queue.pop_front() {
                if client.socket.send(&packet).is_err() {
                    break;
                }
            }
        }
    }
}

impl Duty for Kept {
    fn wants(&self) -> Vec<PollFd<'_>> {
        let mut fds = vec![PollFd::new(&self.door, PollFlags::IN)];
        fds.extend(self.outputs.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        if let Some(input) = self.input.as_ref().filter(|_| !self.typed.is_empty()) {
            fds.push(PollFd::new(input, PollFlags::OUT));
        }
        for client in &self.clients {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, self.typed.len() < PATIENCE);
            events.set(PollFlags::OUT, !client.queue.is_empty());
            // Without events poll(2) would still tell, time and again, that one has gone.
            if !events.is_empty() {
                fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), events));
            }
        }
        fds
    }

    fn attend(&mut self) -> Result<()> {
        self.come();
        self.listen();
        self.print(TURN);
        self.pass_on();
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        // More than that was not in the pipes; what still prints is of another's making.
        self.print(TURN * 8);
        self.log.finish();
        Ok(())
    }
}
