//! Extended attributes: every different set once, every repeated value once.

use super::format::{NO_TABLE, NONE, Put};
use super::metadata::Table;
use super::options::Options;
use super::output::{Output, Target};
use super::tables::pack_lookup;
use crate::error::show;
use crate::tree::{InodeId, Tree, Xattr};
use crate::{Error, Result};
use std::collections::HashMap;

/// Set in the type of an attribute whose value is elsewhere.
const OUT_OF_LINE: u16 = 1 << 8;
/// A reference is as long as this, so shorter values are repeated.
const REFERENCE: usize = 8;
const VALUE_MAX: usize = 65_536;
const NAME_MAX: usize = 255;

/// The namespaces, with their numbers.
const NAMESPACES: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];

/// Which inode has which set.
pub(super) struct Sets<'a> {
    sets: Vec<&'a [Xattr]>,
    /// By [`InodeId::index`].
    places: Vec<u32>,
}

impl<'a> Sets<'a> {
    pub(super) fn new(tree: &'a Tree, inodes: &[InodeId]) -> Self {
        let mut known: HashMap<&[Xattr], u32> = HashMap::new();
        let mut sets = Sets {
            sets: Vec::new(),
            places: vec![NONE; tree.capacity()],
        };
        for id in inodes {
            let set: &[Xattr] = &tree.inode(*id).meta.xattrs;
            if set.is_empty() {
                continue;
            }
            let place = *known.entry(set).or_insert_with(|| {
                sets.sets.push(set);
                sets.sets.len() as u32 - 1
            });
            sets.places[id.index()] = place;
        }
        sets
    }

    /// The set of an inode, or [`NONE`].
    pub(super) fn place(&self, id: InodeId) -> u32 {
        self.places.get(id.index()).copied().unwrap_or(NONE)
    }

    pub(super) fn len(&self) -> u32 {
        self.sets.len() as u32
    }

    /// Writes values, ids and their index. Returns where the table is, or [`NO_TABLE`].
    pub(super) fn write<W: Target>(
        &self,
        output: &mut Output<W>,
        options: &Options,
    ) -> Result<u64> {
        if self.sets.is_empty() {
            return Ok(NO_TABLE);
        }
        let (values, ids) = self.encode(options)?;
        let values_start = output.position();
        output.write(&values)?;
        let index = pack_lookup(output, &ids, options)?;
        let start = output.position();
        let mut head = Vec::new();
        head.put64(values_start);
        head.put32(self.len());
        head.put32(0);
        output.write(&head)?;
        output.write(&index)?;
        Ok(start)
    }

    /// The packed values, and for each set its place, number of attributes and length.
    fn encode(&self, options: &Options) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut table = Table::new(options)?;
        let mut seen: HashMap<&[u8], u64> = HashMap::new();
        let mut ids = Vec::with_capacity(self.sets.len() * 16);
        for set in &self.sets {
            let from = table.position();
            for xattr in *set {
                put(&mut table, xattr, &mut seen)?;
            }
            ids.put64(table.reference(from)?.packed());
            ids.put32(set.len() as u32);
            ids.put32((table.position() - from) as u32);
        }
        Ok((table.finish()?.0, ids))
    }
}

fn put<'a>(table: &mut Table, xattr: &'a Xattr, seen: &mut HashMap<&'a [u8], u64>) -> Result<()> {
    let (namespace, name) = split(xattr)?;
    let earlier = seen.get(xattr.value.as_ref());
    let flag = if earlier.is_some() { OUT_OF_LINE } else { 0 };
    let mut out = Vec::with_capacity(8 + name.len() + xattr.value.len());
    out.put16(namespace | flag);
    out.put16(name.len() as u16);
    out.extend_from_slice(name);
    if let Some(earlier) = earlier {
        out.put32(REFERENCE as u32);
        out.put64(*earlier);
        return table.write(&out);
    }
    table.write(&out)?;
    if xattr.value.len() > REFERENCE {
        let here = table.reference(table.position())?;
        seen.insert(&xattr.value, here.packed());
    }
    let mut out = Vec::with_capacity(4 + xattr.value.len());
    out.put32(xattr.value.len() as u32);
    out.extend_from_slice(&xattr.value);
    table.write(&out)
}

fn split(xattr: &Xattr) -> Result<(u16, &[u8])> {
    let found = NAMESPACES.iter().find_map(|(prefix, number)| {
        let name = xattr.name.strip_prefix(*prefix)?;
        Some((*number, name))
    });
    let fits = xattr.value.len() <= VALUE_MAX && xattr.name.len() <= NAME_MAX;
    match found.filter(|(_, name)| fits && !name.is_empty()) {
        Some(found) => Ok(found),
        None => Err(Error::input(format!(
            "the extended attribute {} of {} bytes cannot be stored in a SquashFS",
            show(&xattr.name),
            xattr.value.len()
        ))
        .with_hint("names start with user., trusted. or security. and have up to 255 bytes, values up to 64 KiB")),
    }
}
