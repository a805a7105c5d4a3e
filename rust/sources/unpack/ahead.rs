//! Members of gzip data unpacked by several threads, handed on in order.
//!
//! A file such as Common Crawl's has a member for each record. It is cut into stretches where a member seems to begin, and each
//! is unpacked by itself. Where the members of one end just where the next begins, reading one after the other would have
//! come to the same place, so all that was unpacked stands; wherever they do not (the beginning was none, a member is damaged,
//! padded or long) the data go back to be read one member after the other, and every error is told there.

use super::codecs::{Fault, Gzip};
use super::counted::Counted;
use super::kind::Kind;
use flate2::FlushDecompress;
use memchr::memmem::Finder;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// How the data are cut; tests have smaller ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes of a stretch, about, and at most: what has no beginning of a member within that is one long member.
    pub(super) stretch: usize,
    pub(super) longest: usize,
    /// Bytes read at once beyond a stretch.
    pub(super) more: usize,
    /// Bytes that a stretch may become.
    pub(super) unpacked: usize,
}

const SIZES: Sizes = Sizes { stretch: 256 << 10, longest: 1 << 20, more: 64 << 10, unpacked: 8 << 20 };
/// The fixed part of a header.
const HEADER_BYTES: usize = 10;
/// Threads that are of use: what they unpack is taken apart by one.
const MAX_THREADS: usize = 8;
/// Stretches in flight for each thread: one being unpacked, one waiting or taken apart.
const PER_THREAD: usize = 2;
/// Stretches that must have stood in a row for what was unpacked in vain to be no matter.
const ENOUGH_STRETCHES: usize = 32;

/// Unpacks what lies ahead.
pub(super) struct Ahead {
    threads: usize,
    sizes: Sizes,
    workers: Option<Workers>,
    /// In flight, in order.
    stretches: VecDeque<Receiver<Done>>,
    /// What is handed on, up to where it was.
    current: Option<(Done, usize)>,
    /// What was read beyond the last stretch; it starts where a member seems to.
    rest: Vec<u8>,
    /// Whether no further stretch can be cut from what comes.
    uncut: bool,
    /// Offset from which to try, and how far to put the next try off after a failure.
    from: u64,
    wait_bytes: u64,
    /// Stretches that stood since the last failure.
    stood: usize,
    spare_raw: Vec<Vec<u8>>,
    spare_out: Vec<Vec<u8>>,
    magic: Finder<'static>,
}

/// Bytes that start where a member seems to, and a buffer for what they become.
struct Stretch {
    raw: Vec<u8>,
    out: Vec<u8>,
    done: Sender<Done>,
}

/// An unpacked stretch: `filled` bytes of `out`, out of members that end at `end` of `raw`.
struct Done {
    raw: Vec<u8>,
    out: Vec<u8>,
    filled: usize,
    end: usize,
}

impl Ahead {
    pub(super) fn new(threads: usize) -> Ahead {
        Self::of(threads, SIZES)
    }

    pub(super) fn of(threads: usize, sizes: Sizes) -> Ahead {
        Ahead {
            threads: threads.min(MAX_THREADS),
            sizes,
            workers: None,
            stretches: VecDeque::new(),
            current: None,
            rest: Vec::new(),
            uncut: false,
            from: sizes.stretch as u64,
            wait_bytes: sizes.longest as u64,
            stood: 0,
            spare_raw: Vec::new(),
            spare_out: Vec::new(),
            magic: Finder::new(b"\x1f\x8b\x08"),
        }
    }

    /// Bytes of the members that come. With 0, `from` stands before what is to be read without this, be it the end.
    pub(super) fn read<R: Read>(&mut self, from: &mut Counted<R>, out: &mut [u8]) -> Result<usize, Fault> {
        let is_at_work = self.current.is_some() || !self.stretches.is_empty();
        if !is_at_work && from.offset() < self.from {
            return Ok(0);
        }
        loop {
            if let Some((done, at)) = &mut self.current {
                let n = out.len().min(done.filled - *at);
                out[..n].copy_from_slice(&done.out[*at..*at + n]);
                *at += n;
                if n > 0 {
                    return Ok(n);
                }
            }
            if let Some((done, _)) = self.current.take() {
                let Done { raw, out, end, .. } = done;
                self.spare_out.push(out);
                if end < raw.len() {
                    self.give_up(from, raw[end..].to_vec())?;
                    return Ok(0);
                }
                self.stood += 1;
                self.spare_raw.push(raw);
            }
            self.cut(from);
            let Some(next) = self.stretches.pop_front() else {
                self.give_up(from, Vec::new())?;
                return Ok(0);
            };
            self.current = Some((received(&next)?, 0));
        }
    }

    /// Gives back all that was taken and not handed on, and puts the next try off.
    fn give_up<R: Read>(&mut self, from: &mut Counted<R>, mut left: Vec<u8>) -> Result<(), Fault> {
        for stretch in std::mem::take(&mut self.stretches) {
            let done = received(&stretch)?;
            left.extend_from_slice(&done.raw);
            self.spare_raw.push(done.raw);
            self.spare_out.push(done.out);
        }
        left.append(&mut self.rest);
        from.give_back(left);
        self.wait_bytes = if self.stood < ENOUGH_STRETCHES { self.wait_bytes.saturating_mul(2) } else { self.sizes.longest as u64 };
        (self.from, self.stood, self.uncut) = (from.offset().saturating_add(self.wait_bytes), 0, false);
        Ok(())
    }

    /// Hands on as many stretches as may be in flight.
    fn cut<R: Read>(&mut self, from: &mut Counted<R>) {
        while !self.uncut && self.stretches.len() < self.threads * PER_THREAD {
            let begin = self.next_begin(from);
            // What is left at the end is the last, if any were before it.
            let is_last = begin.is_none() && self.rest.len() < self.sizes.longest && self.workers.is_some() && !self.rest.is_empty();
            self.uncut = begin.is_none();
            if self.uncut && !is_last {
                return;
            }
            if self.workers.is_none() {
                self.workers = Workers::start(self.threads, self.sizes);
            }
            let Some(workers) = &self.workers else {
                self.uncut = true;
                return;
            };
            let mut raw = std::mem::replace(&mut self.rest, self.spare_raw.pop().unwrap_or_default());
            self.rest.clear();
            if let Some(at) = begin {
                self.rest.extend_from_slice(&raw[at..]);
                raw.truncate(at);
            }
            let (done, unpacked) = channel();
            workers.unpack(Stretch { raw, out: self.spare_out.pop().unwrap_or_default(), done });
            self.stretches.push_back(unpacked);
        }
    }

    /// Where in `rest`, which is filled, the next stretch begins.
    fn next_begin<R: Read>(&mut self, from: &mut Counted<R>) -> Option<usize> {
        let Sizes { stretch, longest, more, unpacked } = self.sizes;
        let mut search = stretch;
        loop {
            let want = (search + more).min(longest);
            from.take_up_to(&mut self.rest, want);
            let beyond = self.rest.get(search..).unwrap_or_default();
            let mut places = self.magic.find_iter(beyond).map(|at| search + at);
            let found = places.find(|at| seems_begin(&self.rest, *at, unpacked));
            if found.is_some() || self.rest.len() < want || want == longest {
                return found;
            }
            search = want.saturating_sub(HEADER_BYTES).max(search + 1);
        }
    }
}

/// Whether a member may begin there: its flags are known, and what stands before may be the length of one that is not too long.
/// The archive of a gzip file, stored, has beginnings of members within one, but no such lengths before them.
fn seems_begin(bytes: &[u8], at: usize, longest: usize) -> bool {
    let length = at.checked_sub(4).and_then(|before| bytes[before..at].first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    bytes.len() - at >= HEADER_BYTES && bytes[at + 3] & 0xe0 == 0 && length.is_some_and(|length| length as usize <= longest)
}

/// An unpacked stretch, once it is. A thread that ended before has panicked and said so.
fn received(stretch: &Receiver<Done>) -> Result<Done, Fault> {
    stretch.recv().map_err(|_| Fault::Io(io::Error::other("a thread that unpacks it has failed; please report it")))
}

/// Threads that unpack stretches until this is dropped, which waits for them.
struct Workers {
    stretches: Option<Sender<Stretch>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// As many as the system gives; `None` without any.
    fn start(threads: usize, sizes: Sizes) -> Option<Workers> {
        let (stretches, todo) = channel::<Stretch>();
        let todo = Arc::new(Mutex::new(todo));
        let start = |_| {
            let todo = todo.clone();
            std::thread::Builder::new().name("tinygpt-unpack".into()).spawn(move || work(&todo, sizes)).ok()
        };
        let threads: Vec<_> = (0..threads).map_while(start).collect();
        (!threads.is_empty()).then_some(Workers { stretches: Some(stretches), threads })
    }

    fn unpack(&self, stretch: Stretch) {
        // Where all threads have panicked, the receiver of what it becomes hears so.
        let _ = self.stretches.as_ref().map(|stretches| stretches.send(stretch));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stretches = None;
        for thread in self.threads.drain(..) {
            // A panic was told where its result was waited for.
            let _ = thread.join();
        }
    }
}

fn work(todo: &Mutex<Receiver<Stretch>>, sizes: Sizes) {
    let mut gzip = Gzip::new(FlushDecompress::Finish);
    loop {
        let next = todo.lock().map_err(drop).and_then(|todo| todo.recv().map_err(drop));
        let Ok(Stretch { raw, out, done }) = next else { return };
        // Nobody listens where reading has ended.
        let _ = done.send(whole_members(&mut gzip, raw, out, sizes));
    }
}

/// Unpacks as many whole members as lie there one after another.
fn whole_members(gzip: &mut Gzip, raw: Vec<u8>, mut out: Vec<u8>, sizes: Sizes) -> Done {
    let mut from = Counted::of(raw);
    let (mut filled, mut end) = (0, 0);
    while let Ok(Some(n)) = member(gzip, &mut from, &mut out, filled, sizes) {
        (filled, end) = (n, from.offset() as usize);
    }
    Done { raw: from.into_bytes(), out, filled, end }
}

/// Where in `out`, which has been filled so far, a member ends; `None` where none begins or there is no room for it.
fn member(
    gzip: &mut Gzip,
    from: &mut Counted<io::Empty>,
    out: &mut Vec<u8>,
    mut filled: usize,
    sizes: Sizes,
) -> Result<Option<usize>, Fault> {
    let head = from.look(Kind::Gzip.certain_bytes())?;
    if Kind::of(head) != Some(Kind::Gzip) {
        return Ok(None);
    }
    gzip.start(from)?;
    loop {
        if filled == out.len() {
            if out.len() >= sizes.unpacked {
                return Ok(None);
            }
            out.resize((2 * out.len()).clamp(4 * sizes.stretch, sizes.unpacked), 0);
        }
        match gzip.read(from, &mut out[filled..])? {
            0 => return Ok(Some(filled)),
            n => filled += n,
        }
    }
}
