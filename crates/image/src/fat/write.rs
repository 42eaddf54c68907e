//! From a tree to places, and from places to bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::geometry::{AHEAD_CLUSTER, Geometry, SMALLEST, SMALLEST_AHEAD};
use super::name::{self, Name};
use super::table::{self, Chain, Free, Identity};
use super::time::DosTime;
use super::tree::{Directory, FatTree, Node, Source};
use super::{ENTRY, MAX_DIR_ENTRIES, ROOT_CLUSTER, SECTOR, attribute};
use crate::disk::Bytes;
use crate::error::{Error, IoContext, Result};
use crate::sparse;

/// What the volume calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatSpec {
    /// Serial number: `0xB007CAFE` is shown as `B007-CAFE` and found with `search --fs-uuid`.
    pub volume_id: u32,
    /// Volume label, up to 11 characters of ASCII, made upper case; empty for none.
    pub label: String,
    /// Time of every entry, in seconds since 1970 (`SOURCE_DATE_EPOCH`), written as UTC.
    pub time: i64,
}

impl FatSpec {
    /// Returns the volume id as Linux (`/dev/disk/by-uuid`) and GRUB write it.
    pub fn uuid(&self) -> String {
        format!(
            "{:04X}-{:04X}",
            self.volume_id >> 16,
            self.volume_id & 0xffff
        )
    }

    fn label_bytes(&self) -> Result<Option<[u8; 11]>> {
        let upper = self.label.to_ascii_uppercase();
        let fine = |b: u8| b.is_ascii_alphanumeric() || b" -_$%'@~`!(){}^#&".contains(&b);
        if upper.len() > 11 || !upper.bytes().all(fine) || upper.starts_with(' ') {
            return Err(Error::input(format!(
                "`{}` cannot be the label of a FAT volume",
                self.label.escape_debug()
            ))
            .with_hint("a label has up to 11 letters, digits, blanks, - and _"));
        }
        let mut label = [b' '; 11];
        for (to, from) in label.iter_mut().zip(upper.bytes()) {
            *to = from;
        }
        Ok((!upper.is_empty()).then_some(label))
    }
}

/// A file system that has been laid out, and can be written.
#[derive(Debug)]
pub struct FatImage<'a> {
    geometry: Geometry,
    plan: Plan<'a>,
    volume_id: u32,
    label: Option<[u8; 11]>,
    time: DosTime,
}

impl<'a> FatImage<'a> {
    /// Where the volume has the bytes of [`FatTree::add_file_ahead`].
    pub const AHEAD: Bytes = Bytes(Geometry::ahead());

    /// Size of the smallest volume that holds `tree` and still has `free` bytes; a multiple of 1 MiB.
    ///
    /// # Errors
    /// A tree that no FAT32 volume holds.
    pub fn size_for(tree: &FatTree, free: Bytes) -> Result<Bytes> {
        let mut size = match tree.ahead {
            None => SMALLEST,
            Some(_) => SMALLEST_AHEAD,
        };
        loop {
            let geometry = geometry(tree, size)?;
            let need = Plan::new(tree, geometry.cluster())?.span();
            let need = need + free.0.div_ceil(geometry.cluster());
            if need <= geometry.clusters {
                return Ok(size);
            }
            let lacking = Bytes((need - geometry.clusters).saturating_mul(geometry.cluster()));
            let more = lacking.round_up(Bytes::mib(1)).unwrap_or(lacking);
            size = Bytes(size.0.saturating_add(more.0));
        }
    }

    /// Lays `tree` out in a volume of `size` bytes.
    ///
    /// # Errors
    /// A size that is too small for FAT32 or for the tree, a label that FAT cannot hold, or a directory with too many entries.
    pub fn new(tree: &'a FatTree, spec: &FatSpec, size: Bytes) -> Result<Self> {
        let geometry = geometry(tree, size)?;
        let plan = Plan::new(tree, geometry.cluster())?;
        if plan.span() > geometry.clusters {
            return Err(Error::input(format!(
                "the EFI partition needs {} for its files, but has {}",
                Bytes(plan.span() * geometry.cluster()),
                Bytes(geometry.clusters * geometry.cluster())
            ))
            .with_hint("make the EFI partition larger"));
        }
        Ok(FatImage {
            geometry,
            plan,
            volume_id: spec.volume_id,
            label: spec.label_bytes()?,
            time: DosTime::from_unix(spec.time),
        })
    }

    /// Writes the volume to `file` at byte `at`, where the file should be a hole (or zeros).
    ///
    /// `progress` is told the bytes of content passed since it was last called, and may stop the work with an error.
    ///
    /// # Errors
    /// A failed read or write, or a source that changed its size.
    pub fn write(
        &self,
        file: &File,
        at: Bytes,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let identity = Identity {
            volume_id: self.volume_id,
            label: self.label.unwrap_or(*b"NO NAME    "),
            hidden: u32::try_from(at.0 / SECTOR).unwrap_or(0),
        };
        let free = Free {
            clusters: self.geometry.clusters - self.plan.used(),
            next: self.plan.next,
        };
        table::write_boot(file, at.0, &self.geometry, &identity, &free)
            .doing(|| "writing the FAT boot sectors".into())?;
        table::write_fats(file, at.0, &self.geometry, &self.plan.chains)
            .doing(|| "writing the FAT".into())?;
        for directory in &self.plan.directories {
            let bytes = self.directory_bytes(directory);
            file.write_all_at(&bytes, at.0 + self.geometry.offset(directory.first))
                .doing(|| "writing a FAT directory".into())?;
        }
        for (first, path, source) in &self.plan.files {
            let to = at.0 + self.geometry.offset(*first);
            write_source(file, to, path, source, progress)?;
        }
        Ok(())
    }

    fn directory_bytes(&self, directory: &PlannedDirectory) -> Vec<u8> {
        let mut out = Vec::new();
        match directory.parent {
            None => {
                if let Some(label) = &self.label {
                    self.entry(label, attribute::VOLUME_LABEL, 0, 0, &mut out);
                }
            }
            Some(parent) => {
                let above = if parent == ROOT_CLUSTER { 0 } else { parent };
                self.entry(
                    b".          ",
                    attribute::DIRECTORY,
                    directory.first,
                    0,
                    &mut out,
                );
                self.entry(b"..         ", attribute::DIRECTORY, above, 0, &mut out);
            }
        }
        for entry in &directory.entries {
            entry.name.write_long(&mut out);
            self.entry(
                &entry.name.short,
                entry.attribute,
                entry.first,
                entry.size,
                &mut out,
            );
        }
        out.resize(
            directory.clusters as usize * self.geometry.cluster() as usize,
            0,
        );
        out
    }

    /// fatgen103, "FAT 32 Byte Directory Entry Structure".
    fn entry(&self, short: &[u8; 11], attribute: u8, first: u32, size: u32, out: &mut Vec<u8>) {
        let DosTime {
            date,
            time,
            hundredths,
        } = self.time;
        out.extend(short); // 0
        out.extend([attribute, 0, hundredths]); // 11: attribute, reserved, creation hundredths
        for word in [
            time,
            date,
            date,
            (first >> 16) as u16,
            time,
            date,
            first as u16,
        ] {
            out.extend(word.to_le_bytes()); // 14: creation, access, cluster high, write, cluster low
        }
        out.extend(size.to_le_bytes()); // 28
    }
}

fn geometry(tree: &FatTree, size: Bytes) -> Result<Geometry> {
    match tree.ahead {
        None => Geometry::for_size(size),
        Some(_) => Geometry::with_file_ahead(size),
    }
}

fn write_source(
    file: &File,
    to: u64,
    path: &str,
    source: &Source,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    match source {
        Source::Bytes(bytes) => {
            sparse::write_sparse(file, to, bytes)
                .doing(|| format!("writing {path} into the EFI partition"))?;
            progress(bytes.len() as u64)
        }
        Source::File {
            file: from,
            offset,
            len,
        } => sparse::copy(path, from, *offset, *len, file, to, progress),
    }
}

/// Where everything lies, in clusters.
#[derive(Debug)]
struct Plan<'a> {
    cluster: u64,
    /// The first cluster that is still free.
    next: u32,
    /// Where directories go instead: the first free cluster before the file that is in its place already.
    low: Option<u32>,
    /// All chains; when the plan is finished, in the order of their places.
    chains: Vec<Chain>,
    directories: Vec<PlannedDirectory>,
    /// First cluster, path and content of every file that is not empty.
    files: Vec<(u32, String, &'a Source)>,
}

#[derive(Debug)]
struct PlannedDirectory {
    first: u32,
    clusters: u32,
    /// `None` for the root.
    parent: Option<u32>,
    entries: Vec<PlannedEntry>,
}

#[derive(Debug)]
struct PlannedEntry {
    name: Name,
    attribute: u8,
    first: u32,
    size: u32,
}

impl<'a> Plan<'a> {
    fn new(tree: &'a FatTree, cluster: u64) -> Result<Self> {
        let mut plan = Plan {
            cluster,
            next: ROOT_CLUSTER,
            low: None,
            chains: Vec::new(),
            directories: Vec::new(),
            files: Vec::new(),
        };
        if let Some(len) = tree.ahead {
            plan.next = AHEAD_CLUSTER;
            plan.allocate(len)?;
            plan.low = Some(ROOT_CLUSTER);
        }
        plan.directory(&tree.root, "", None)?;
        plan.chains.sort_unstable_by_key(|chain| chain.first);
        Ok(plan)
    }

    /// Clusters up to the last one that is used.
    fn span(&self) -> u64 {
        u64::from(self.next - ROOT_CLUSTER)
    }

    /// Clusters that are used.
    fn used(&self) -> u64 {
        self.chains
            .iter()
            .map(|chain| u64::from(chain.length))
            .sum()
    }

    /// As many clusters as `bytes` need behind what is there; the first is 0 for none.
    fn allocate(&mut self, bytes: u64) -> Result<Chain> {
        let chain = self.chain(self.next, bytes)?;
        self.next = self.next.max(chain.end());
        Ok(chain)
    }

    fn allocate_directory(&mut self, bytes: u64) -> Result<Chain> {
        let Some(low) = self.low else {
            return self.allocate(bytes);
        };
        let chain = self.chain(low, bytes)?;
        if chain.end() > AHEAD_CLUSTER {
            return Err(Error::input(
                "the directories of the boot partition need more than 1 MiB",
            ));
        }
        self.low = Some(chain.end());
        Ok(chain)
    }

    fn chain(&mut self, first: u32, bytes: u64) -> Result<Chain> {
        if bytes == 0 {
            return Ok(Chain::default());
        }
        let length = u32::try_from(bytes.div_ceil(self.cluster)).ok();
        let Some(length) = length.filter(|length| first.checked_add(*length).is_some()) else {
            return Err(Error::input("the files are too large for one FAT32 volume"));
        };
        let chain = Chain { first, length };
        self.chains.push(chain);
        Ok(chain)
    }

    /// Places a directory, then what is in it, and returns its first cluster.
    fn directory(
        &mut self,
        directory: &'a Directory,
        path: &str,
        parent: Option<u32>,
    ) -> Result<u32> {
        let children = &directory.entries;
        let names = name::assign(children.values().map(|(name, _)| name.as_str()))?;
        let own = if parent.is_none() { 1 } else { 2 };
        let count = own + names.iter().map(Name::entries).sum::<usize>();
        if count > MAX_DIR_ENTRIES {
            return Err(Error::input(format!(
                "the directory `/{path}` of the EFI partition needs {count} entries; FAT has room for {MAX_DIR_ENTRIES}"
            )));
        }
        let Chain { first, length } = self.allocate_directory((count * ENTRY) as u64)?;
        let slot = self.directories.len();
        self.directories.push(PlannedDirectory {
            first,
            clusters: length,
            parent,
            entries: Vec::new(),
        });
        let mut entries = Vec::with_capacity(names.len());
        for (name, (long, node)) in names.into_iter().zip(children.values()) {
            let path = if path.is_empty() {
                long.clone()
            } else {
                format!("{path}/{long}")
            };
            entries.push(self.child(name, path, node, first)?);
        }
        if let Some(placed) = self.directories.get_mut(slot) {
            placed.entries = entries;
        }
        Ok(first)
    }

    fn child(
        &mut self,
        name: Name,
        path: String,
        node: &'a Node,
        parent: u32,
    ) -> Result<PlannedEntry> {
        let (attribute, first, size) = match node {
            Node::Directory(inner) => (
                attribute::DIRECTORY,
                self.directory(inner, &path, Some(parent))?,
                0,
            ),
            Node::File(source) => {
                let first = self.allocate(source.len())?.first;
                if first != 0 {
                    self.files.push((first, path, source));
                }
                (attribute::ARCHIVE, first, file_size(source.len())?)
            }
            Node::Ahead(0) => (attribute::ARCHIVE, 0, 0),
            Node::Ahead(len) => (attribute::ARCHIVE, AHEAD_CLUSTER, file_size(*len)?),
        };
        Ok(PlannedEntry {
            name,
            attribute,
            first,
            size,
        })
    }
}

/// [`FatTree`] takes no larger file.
fn file_size(len: u64) -> Result<u32> {
    u32::try_from(len).map_err(|_| {
        Error::new(
            crate::ErrorKind::Internal,
            format!("a file of {len} bytes is in a FAT tree"),
        )
    })
}
