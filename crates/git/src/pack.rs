//! Packs: many objects in one file, some stored as the difference to others. The file is a stranger's.
//!
//! A pack is `PACK`, its version and the number of its objects in 32 bits each; the objects, each a kind and size, perhaps its
//! base, and a zlib stream; and the SHA-1 of all that. What names an object is computed here from what it holds, so that a
//! wrong byte makes an object that nobody asks for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::bufread::ZlibDecoder;

use crate::id::{Id, Kind, Sum};
use crate::{Limits, Options, delta};

/// Why a pack cannot be used.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is wrong.
    Wrong(String),
    /// A file of this machine cannot be read or written.
    Local(io::Error),
    /// Somebody wished for the end.
    Stopped,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as K;
        match error.kind() {
            K::UnexpectedEof => wrong("the pack breaks off"),
            K::InvalidData | K::InvalidInput => wrong(&format!("the pack is damaged: {error}")),
            _ => Trouble::Local(error),
        }
    }
}

fn wrong(what: &str) -> Trouble {
    Trouble::Wrong(what.to_owned())
}

/// Objects of a pack, by their names.
pub(crate) struct Pack {
    packed: File,
    /// Objects that were stored as differences, one behind the other.
    made: File,
    made_bytes: u64,
    objects: HashMap<Id, Object>,
}

/// Where an object is.
#[derive(Clone, Copy)]
struct Object {
    kind: Kind,
    size: u64,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// A zlib stream in the pack.
    Packed(u64),
    /// Among those that were made.
    Made(u64),
}

/// An object that is stored as a difference.
struct Delta {
    at: u64,
    base: Base,
    size: u64,
    stream: u64,
}

/// The entries of a pack.
#[derive(Default)]
struct Scanned {
    /// Places and names of those that are whole.
    whole: Vec<(u64, Id)>,
    deltas: Vec<Delta>,
}

enum Base {
    At(u64),
    Named(Id),
}

impl Pack {
    /// Reads a pack through and computes the names of its objects. What was stored as differences goes to a file of its own
    /// below `dir`, so that only three objects are in memory at a time.
    pub(crate) fn open(packed: File, dir: &Path, options: &Options<'_>) -> Result<Pack, Trouble> {
        let mut pack = Pack {
            packed,
            made: tempfile::tempfile_in(dir)?,
            made_bytes: 0,
            objects: HashMap::new(),
        };
        let mut room = options.limits.unpacked;
        let scanned = pack.scan(&mut room, options)?;
        pack.make(scanned, &mut room, options)?;
        Ok(pack)
    }

    /// Reads all entries; returns those that are whole with their places, and the others.
    fn scan(&mut self, room: &mut u64, options: &Options<'_>) -> Result<Scanned, Trouble> {
        let mut input = Tally::new(self.packed.try_clone()?);
        let mut head = [0; 12];
        input.read_exact(&mut head)?;
        let [version, count] = [4, 8]
            .map(|at| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        if &head[..4] != b"PACK" || version != 2 {
            return Err(wrong("what it sends is no pack of version 2"));
        }
        let most = options.limits.objects;
        if count > most {
            return Err(Trouble::Wrong(format!(
                "{count} objects in a pack, {most} is the maximum"
            )));
        }
        let mut scanned = Scanned::default();
        for _ in 0..count {
            if (options.stop)() {
                return Err(Trouble::Stopped);
            }
            let at = input.place;
            let (kind, size) = entry_head(&mut input)?;
            take(room, size)?;
            let kind = match kind {
                1 => Kind::Commit,
                2 => Kind::Tree,
                3 => Kind::Blob,
                4 => Kind::Tag,
                6 | 7 => {
                    let base = base(&mut input, kind, at)?;
                    check_size(size, &options.limits)?;
                    let stream = input.place;
                    inflate(&mut input, size, &mut io::sink())?;
                    scanned.deltas.push(Delta {
                        at,
                        base,
                        size,
                        stream,
                    });
                    continue;
                }
                _ => return Err(wrong("the pack has an object of a kind that there is not")),
            };
            let place = Place::Packed(input.place);
            let mut sum = Sum::of(kind, size);
            inflate(&mut input, size, &mut sum)?;
            let id = sum.end();
            scanned.whole.push((at, id));
            self.objects.insert(id, Object { kind, size, place });
        }
        let sum = input.end_sum();
        let mut said = [0; 20];
        input.read_exact(&mut said)?;
        if Id(said) != sum {
            return Err(wrong(
                "the pack's own check sum is another one: it is damaged",
            ));
        }
        if !input.fill_buf()?.is_empty() {
            return Err(wrong("something follows the pack"));
        }
        Ok(scanned)
    }

    /// Makes the objects that are stored as differences, from those that are whole on. Each base is read once.
    fn make(
        &mut self,
        scanned: Scanned,
        room: &mut u64,
        options: &Options<'_>,
    ) -> Result<(), Trouble> {
        let Scanned { whole, deltas } = scanned;
        let mut left = deltas.len();
        let mut at_place: HashMap<u64, Vec<Delta>> = HashMap::new();
        let mut of_name: HashMap<Id, Vec<Delta>> = HashMap::new();
        for delta in deltas {
            match delta.base {
                Base::At(place) => at_place.entry(place).or_default().push(delta),
                Base::Named(id) => of_name.entry(id).or_default().push(delta),
            }
        }
        let mut bases = whole;
        while let Some((at, id)) = bases.pop() {
            let named = [at_place.remove(&at), of_name.remove(&id)];
            let waiting: Vec<Delta> = named.into_iter().flatten().flatten().collect();
            if waiting.is_empty() {
                continue;
            }
            let (kind, base) = self.in_memory(id, &options.limits)?;
            for delta in waiting {
                if (options.stop)() {
                    return Err(Trouble::Stopped);
                }
                let mut difference = Vec::new();
                let mut stream = BufReader::new(At(&self.packed, delta.stream));
                inflate(&mut stream, delta.size, &mut difference)?;
                let most = options.limits.in_memory.min(*room);
                let content = delta::apply(&base, &difference, most).map_err(wrong)?;
                take(room, content.len() as u64)?;
                bases.push((delta.at, self.keep(kind, &content)?));
                left -= 1;
            }
        }
        // Also such as are, in a circle, each the difference to another.
        match left {
            0 => Ok(()),
            _ => Err(Trouble::Wrong(format!(
                "{left} objects of the pack are stored as differences to objects that it does not have"
            ))),
        }
    }

    fn keep(&mut self, kind: Kind, content: &[u8]) -> Result<Id, Trouble> {
        let size = content.len() as u64;
        let mut sum = Sum::of(kind, size);
        sum.add(content);
        let id = sum.end();
        self.made
            .write_all_at(content, self.made_bytes)
            .map_err(Trouble::Local)?;
        let place = Place::Made(self.made_bytes);
        self.made_bytes += size;
        self.objects.insert(id, Object { kind, size, place });
        Ok(id)
    }

    /// The kind and size of an object, if it is there.
    pub(crate) fn find(&self, id: Id) -> Option<(Kind, u64)> {
        self.objects
            .get(&id)
            .map(|object| (object.kind, object.size))
    }

    /// Writes what an object holds, and returns its kind.
    pub(crate) fn write(&self, id: Id, to: &mut dyn Write) -> Result<Kind, Trouble> {
        let missing = || Trouble::Wrong(format!("the object {id} was not sent"));
        let object = self.objects.get(&id).ok_or_else(missing)?;
        match object.place {
            Place::Packed(at) => {
                let mut stream = BufReader::new(At(&self.packed, at));
                inflate(&mut stream, object.size, to)?;
            }
            Place::Made(at) => {
                let copied = io::copy(&mut At(&self.made, at).take(object.size), to);
                copied.map_err(Trouble::Local)?;
            }
        }
        Ok(object.kind)
    }

    /// An object, in memory.
    pub(crate) fn in_memory(&self, id: Id, limits: &Limits) -> Result<(Kind, Vec<u8>), Trouble> {
        if let Some((_, size)) = self.find(id) {
            check_size(size, limits)?;
        }
        let mut content = Vec::new();
        let kind = self.write(id, &mut content)?;
        Ok((kind, content))
    }
}

/// Takes from the room for unpacked objects.
fn take(room: &mut u64, size: u64) -> Result<(), Trouble> {
    *room = room
        .checked_sub(size)
        .ok_or_else(|| wrong("the pack is too large, unpacked"))?;
    Ok(())
}

fn check_size(size: u64, limits: &Limits) -> Result<(), Trouble> {
    let most = limits.in_memory;
    match size <= most {
        true => Ok(()),
        false => Err(Trouble::Wrong(format!(
            "an object has {size} bytes, and {most} is the maximum for one that is a directory, or stored as a difference"
        ))),
    }
}

fn byte(input: &mut impl Read) -> Result<u8, Trouble> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// The kind and the size of an entry: three bits and four, and seven in each byte that follows.
fn entry_head(input: &mut impl Read) -> Result<(u8, u64), Trouble> {
    let first = byte(input)?;
    let mut size = u64::from(first & 0x0f);
    let (mut code, mut shift) = (first, 4);
    while code & 0x80 != 0 {
        if shift > 56 {
            return Err(wrong("an object has a size that is too large"));
        }
        code = byte(input)?;
        size |= u64::from(code & 0x7f) << shift;
        shift += 7;
    }
    Ok(((first >> 4) & 7, size))
}

/// What an entry is the difference to: a name, or how far before it the base stands, which is never here or behind.
fn base(input: &mut impl Read, kind: u8, at: u64) -> Result<Base, Trouble> {
    if kind == 7 {
        let mut id = [0; 20];
        input.read_exact(&mut id)?;
        return Ok(Base::Named(Id(id)));
    }
    let mut code = byte(input)?;
    let mut back = u64::from(code & 0x7f);
    while code & 0x80 != 0 {
        code = byte(input)?;
        back = (back < 1 << 54)
            .then(|| ((back + 1) << 7) | u64::from(code & 0x7f))
            .ok_or_else(|| wrong("a difference is to an object that stands too far away"))?;
    }
    match at.checked_sub(back) {
        Some(place) if back > 0 => Ok(Base::At(place)),
        _ => Err(wrong("a difference is to something outside of the pack")),
    }
}

/// Unpacks a zlib stream that has to have just as many bytes as were said.
fn inflate(input: &mut impl BufRead, size: u64, to: &mut dyn Write) -> Result<(), Trouble> {
    let decoder = ZlibDecoder::new(input);
    let copied = io::copy(&mut decoder.take(size + 1), to)?;
    match copied == size {
        true => Ok(()),
        false => Err(wrong("an object has not the size that the pack says")),
    }
}

/// A file from a place on.
struct At<'a>(&'a File, u64);

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read_at(buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}

/// The pack, with how much of it was read and the sum of that.
struct Tally {
    inner: BufReader<File>,
    place: u64,
    sum: Sum,
}

impl Tally {
    fn new(file: File) -> Self {
        Tally {
            inner: BufReader::with_capacity(64 << 10, file),
            place: 0,
            sum: Sum::new(),
        }
    }

    fn end_sum(&mut self) -> Id {
        std::mem::replace(&mut self.sum, Sum::new()).end()
    }
}

impl BufRead for Tally {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.sum.add(&self.inner.buffer()[..count]);
        self.place += count as u64;
        self.inner.consume(count);
    }
}

impl Read for Tally {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
