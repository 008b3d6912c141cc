//! What a worker prints: one pipe for stdout and stderr, drained all the time, kept up to a limit, and handed out
//! with the invocation during which it was printed.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use tokio::net::unix::pipe::Receiver;

/// Most output kept for one invocation (the contract of `InvocationResult::logs`).
pub const MAX_LOG_BYTES: usize = 64 * 1024;
/// Output at the end of a worker's life, shown when it crashes.
const MAX_TAIL_BYTES: usize = 8 * 1024;
/// Most lines of it.
const MAX_TAIL_LINES: usize = 32;
/// Size of one read: small, because one is tried for every answer.
const READ_BYTES: usize = 16 * 1024;
/// Most reads of one [`Logs::drain`]: a program that prints without end must not hold its own answer up.
const MAX_DRAIN_READS: usize = 64;

/// The output of one worker. Clones share it.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

struct Shared {
    pipe: Receiver,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    partial: Vec<u8>,
    bytes: usize,
    dropped: bool,
    tail: Vec<u8>,
}

impl Logs {
    /// Takes the read end of the worker's output pipe.
    ///
    /// # Errors
    /// When the pipe cannot be watched.
    pub fn new(pipe: OwnedFd) -> io::Result<Self> {
        let pipe = Receiver::from_owned_fd(pipe)?;
        Ok(Self(Arc::new(Shared { pipe, kept: Mutex::default() })))
    }

    /// Reads until every writer has closed the pipe.
    pub async fn follow(&self) {
        while self.0.pipe.readable().await.is_ok() {
            // Through the pipe's own method, which notes when it is empty.
            if let Progress::Closed = self.read(|buffer| self.0.pipe.try_read(buffer)) {
                return;
            }
        }
    }

    /// Takes what lies in the pipe now, without waiting.
    pub fn drain(&self) {
        for _ in 0..MAX_DRAIN_READS {
            // Past the pipe's own method, which only tries when it has been told that there is something.
            let pipe = self.0.pipe.as_fd();
            if !matches!(self.read(|buffer| Ok(rustix::io::read(pipe, buffer)?)), Progress::Read) {
                return;
            }
        }
    }

    /// Hands out the lines printed since the last call; an unfinished line counts as one.
    pub fn take(&self) -> Vec<String> {
        let mut kept = self.lock();
        kept.end_line();
        if mem::take(&mut kept.dropped) {
            kept.lines.push(format!("(output cut at {} KiB)", MAX_LOG_BYTES / 1024));
        }
        kept.bytes = 0;
        kept.tail.clear();
        mem::take(&mut kept.lines)
    }

    /// The last lines printed since the last [`Logs::take`].
    pub fn tail(&self) -> Vec<String> {
        let kept = self.lock();
        let text = String::from_utf8_lossy(&kept.tail);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(MAX_TAIL_LINES)..].iter().map(|&line| line.to_owned()).collect()
    }

    /// Reads once. The lock is held meanwhile, so that two readers cannot swap what they read.
    fn read(&self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> Progress {
        let mut kept = self.lock();
        let mut buffer = [0_u8; READ_BYTES];
        match read(&mut buffer) {
            Ok(0) => Progress::Closed,
            Ok(count) => {
                kept.push(&buffer[..count]);
                Progress::Read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Empty,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Progress::Read,
            Err(_) => Progress::Closed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Progress {
    Read,
    Empty,
    Closed,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(MAX_TAIL_BYTES)..]);
        if self.tail.len() > 2 * MAX_TAIL_BYTES {
            let excess = self.tail.len() - MAX_TAIL_BYTES;
            self.tail.drain(..excess);
        }
        let room = MAX_LOG_BYTES - self.bytes;
        let taken = &bytes[..bytes.len().min(room)];
        self.dropped |= taken.len() < bytes.len();
        self.bytes += taken.len();
        for piece in taken.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.partial);
        if line.is_empty() {
            return;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.lines.push(String::from_utf8_lossy(line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pieces: &[&[u8]]) -> Kept {
        let mut kept = Kept::default();
        pieces.iter().for_each(|piece| kept.push(piece));
        kept.end_line();
        kept
    }

    #[test]
    fn lines_are_put_together_across_reads() {
        assert_eq!(kept(&[b"a\nb", b"c\r\n\nd"]).lines, ["a", "bc", "", "d"]);
        assert_eq!(kept(&["é".as_bytes()[..1].as_ref(), &"é".as_bytes()[1..]]).lines, ["é"]);
    }

    #[test]
    fn a_flood_is_cut_and_its_end_kept_as_tail() {
        let kept = kept(&[&[b'x'; MAX_LOG_BYTES], &[b'y'; 100_000], b"\nlast\n"]);
        assert_eq!((kept.bytes, kept.dropped), (MAX_LOG_BYTES, true));
        assert_eq!(kept.lines.iter().map(String::len).sum::<usize>(), MAX_LOG_BYTES);
        assert!(kept.tail.ends_with(b"\nlast\n") && kept.tail.len() <= 2 * MAX_TAIL_BYTES);
    }
}
