//! The passes, in order.

use super::ahead::{Ahead, New, check, is_little};
use super::dedup::Contents;
use super::directories;
use super::format::{
    BLOCK_RAW, METADATA_RAW, Put, Reference, SUPERBLOCK, Superblock, compressor_options,
};
use super::inodes::{self, DirectoryFacts, Header, Ids, Stored};
use super::job::{Block, Finished, Part, Planned, Source};
use super::layout::{Layout, Placement};
use super::metadata::Table;
use super::numbering::Numbering;
use super::options::{Options, Summary};
use super::output::{Direct, Output, Target};
use super::pipeline;
use super::plan::{Material, plan};
use super::store::{self, BlockKey, BlockStore};
use super::tables::write_lookup;
use super::xattrs::Sets;
use crate::tree::{InodeId, Kind, Tree};
use crate::{Error, Result};

/// What is told while an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Bytes of file contents that are done, and their sum; duplicates do not count.
    Contents(u64, u64),
    /// The padded length, where it is known before the image is complete.
    Length(u64),
    /// So many bytes from the image's start on are as they will stay. It is told after the length only.
    Final(u64),
}

/// Writes `tree` as a SquashFS, starting where `out` stands now and leaving it behind the padding.
///
/// `progress` is called on this thread with the bytes of file contents that are done and their sum (duplicates not counted).
/// The image depends on the tree and the options, not on [`Options::threads`]. After an error the target holds an
/// incomplete image, without a superblock unless the length was known before.
///
/// # Errors
/// An option is out of range, the tree has something that no SquashFS holds, a file changed, vanished or cannot be read, or
/// the target cannot be written.
pub fn write<W: Target>(
    tree: &Tree,
    out: W,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    write_told(tree, out, options, &|told| match told {
        Told::Contents(done, total) => progress(done, total),
        Told::Length(_) | Told::Final(_) => {}
    })
}

/// As [`write`]; `tell` is told, on this thread, also what can be read already.
///
/// # Errors
/// As [`write`].
pub fn write_told<W: Target>(
    tree: &Tree,
    out: W,
    options: &Options,
    tell: &dyn Fn(Told),
) -> Result<Summary> {
    planned(tree, options, |numbering, material, planned| {
        let mut output = Output::new(out)?;
        output.write(&head(options))?;
        let image = Image {
            tree,
            numbering,
            material: *material,
            planned,
            tell,
        };
        match (material.store, output.direct()) {
            (Some(store), Some(direct)) if is_little(planned, options.new_first) => {
                image.write_known(output, direct, store)
            }
            _ => image.write_as_it_comes(output),
        }
    })
}

/// An image to be written.
struct Image<'a> {
    tree: &'a Tree,
    numbering: &'a Numbering<'a>,
    material: Material<'a>,
    planned: &'a [Planned],
    tell: &'a dyn Fn(Told),
}

impl Image<'_> {
    /// Blocks first, then what depends on their lengths.
    fn write_as_it_comes<W: Target>(&self, mut output: Output<W>) -> Result<Summary> {
        let store = self.material.store;
        let mut data = Data::new(&self.material, self.tell);
        let from = (output.position(), output.direct());
        pipeline::run(&self.material, self.planned, from, |finished| {
            data.take(finished, store, &mut output)?;
            Ok(output.position())
        })?;
        self.finish(data, output)
    }

    /// What is new first, then what depends on the blocks' lengths, then the blocks.
    fn write_known<W: Target>(
        &self,
        mut output: Output<W>,
        direct: Direct,
        store: &dyn BlockStore,
    ) -> Result<Summary> {
        let missing: Vec<Planned> = missing_of(self.planned).copied().collect();
        let mut new = New::default();
        pipeline::run(&self.material, &missing, (0, None), |finished| {
            new.add(finished, store);
            Ok(0)
        })?;
        let ahead = Ahead::new(store, new);
        let material = Material {
            store: Some(&ahead),
            ..self.material
        };
        let planned = ahead.complete(self.planned)?;
        let start = output.position();
        let mut data = Data::new(&self.material, self.tell);
        let mut position = start;
        for block in planned.iter().map(Planned::reused) {
            data.place(&block, position)?;
            position += block.stored() as u64;
        }
        output.skip(position - start)?;
        let mut summary = self.finish(data, output)?;
        (self.tell)(Told::Length(summary.padded_bytes));
        let mut progress = Progress::new(&self.material, self.tell);
        let (mut count, mut position) = (0, start);
        let from = (start, Some(direct));
        pipeline::run(&material, &planned, from, |finished| {
            check(planned.iter().skip(count), &finished.blocks)?;
            let before = self.planned.iter().skip(count);
            for (block, before) in finished.blocks.iter().zip(before) {
                position += block.stored() as u64;
                progress.count(block);
                summary.reused_blocks += u64::from(block.reused && before.known.is_some());
            }
            count += finished.blocks.len();
            progress.tell();
            (self.tell)(Told::Final(position));
            Ok(position)
        })?;
        (self.tell)(Told::Final(summary.padded_bytes));
        Ok(summary)
    }

    /// Writes metadata and superblock.
    fn finish<W: Target>(&self, data: Data<'_>, mut output: Output<W>) -> Result<Summary> {
        let Material {
            contents,
            layout,
            options,
            ..
        } = self.material;
        let metadata = Metadata {
            tree: self.tree,
            options,
            numbering: self.numbering,
            representatives: &contents.representatives,
            placements: &layout.placements,
            stored: &data.stored,
            xattrs: Sets::new(self.tree, &self.numbering.order),
            ids: Ids::default(),
            places: vec![None; self.numbering.order.len()],
        };
        let xattr_sets = metadata.xattrs.len();
        let superblock = metadata.write(&data.fragments, &mut output)?;
        let padded_bytes = output.finish(&superblock.encode(options))?;
        Ok(Summary {
            bytes: superblock.bytes,
            padded_bytes,
            inodes: superblock.inodes,
            ids: u32::from(superblock.ids),
            xattr_sets,
            ..data.summary
        })
    }
}

/// Names of the blocks that [`write`] would have to compress, because the options' store does not have them. Files whose
/// digests are not known are read for it.
///
/// # Errors
/// As [`write`].
pub fn missing(tree: &Tree, options: &Options) -> Result<Vec<BlockKey>> {
    planned(tree, options, |_, _, planned| {
        Ok(missing_of(planned).filter_map(|block| block.key).collect())
    })
}

fn missing_of(planned: &[Planned]) -> impl Iterator<Item = &Planned> {
    planned.iter().filter(|block| block.is_missing())
}

/// Does something with the plan of an image.
fn planned<T>(
    tree: &Tree,
    options: &Options,
    work: impl FnOnce(&Numbering<'_>, &Material<'_>, &[Planned]) -> Result<T>,
) -> Result<T> {
    options.check()?;
    let numbering = Numbering::new(tree)?;
    let contents = Contents::new(&numbering.files, options)?;
    let layout = Layout::new(&numbering.files, &contents.representatives, options);
    let material = Material {
        files: &numbering.files,
        contents: &contents,
        layout: &layout,
        options,
        store: options.block_store.as_deref(),
    };
    work(&numbering, &material, &plan(&material)?)
}

/// Where the data of an image that [`write`] has written begins, and its blocks as the options' store has them, in the image's order, one
/// behind the other. `None` where the store does not have them all.
///
/// # Errors
/// As [`write`].
pub fn stored(tree: &Tree, options: &Options) -> Result<Option<(u64, Vec<store::Stored>)>> {
    planned(tree, options, |_, _, planned| {
        let kept = planned.iter().filter(|block| block.size() != Some(0));
        let known: Option<Vec<_>> = kept.map(|block| block.known).collect();
        Ok(known.map(|known| (head(options).len() as u64, known)))
    })
}

/// Compresses blocks of an image to come, as far as the options' store does not have them, and leaves them there; ends early, and
/// well, when `go_on` says so. Returns the number of blocks. Blocks of files that are shorter than a block are left out: which of
/// them share a block is known only when all files are.
///
/// # Errors
/// As [`write`].
pub fn prepare(tree: &Tree, options: &Options, go_on: &dyn Fn() -> bool) -> Result<u64> {
    let Some(store) = options.block_store.as_deref() else {
        return Ok(0);
    };
    planned(tree, options, |_, material, planned| {
        let data = |block: &&Planned| matches!(block.source, Source::Data { .. });
        let missing: Vec<Planned> = missing_of(planned).filter(data).copied().collect();
        let mut blocks = 0;
        let done = pipeline::run(material, &missing, (0, None), |finished| {
            put_new(finished, store);
            blocks += finished.blocks.len() as u64;
            if go_on() {
                Ok(0)
            } else {
                Err(Error::cancelled())
            }
        });
        match done {
            Err(error) if error.kind() == crate::ErrorKind::Cancelled => Ok(blocks),
            done => done.map(|()| blocks),
        }
    })
}

/// Here, and not on the threads, so that the store has blocks in the order in which they are read again.
fn put_new(finished: &Finished, store: &dyn BlockStore) {
    let mut rest = finished.bytes();
    for block in &finished.blocks {
        let (bytes, behind) = rest.split_at(block.stored().min(rest.len()));
        if let Some(key) = &block.new {
            store.put(key, block.size & BLOCK_RAW != 0, bytes);
        }
        rest = behind;
    }
}

/// A superblock of zeros, so that an unfinished image is not taken for one, and the compressor's options.
fn head(options: &Options) -> Vec<u8> {
    let mut head = vec![0; SUPERBLOCK];
    let settings = compressor_options(options);
    if !settings.is_empty() {
        head.put16(settings.len() as u16 | METADATA_RAW);
        head.extend_from_slice(&settings);
    }
    head
}

/// How many bytes of file contents are done.
struct Progress<'a> {
    done: u64,
    total: u64,
    tell: &'a dyn Fn(Told),
}

impl<'a> Progress<'a> {
    fn new(material: &Material<'_>, tell: &'a dyn Fn(Told)) -> Self {
        let files = material.files.iter().enumerate();
        let stored = files.filter(|(index, _)| material.contents.is_stored(*index));
        Progress {
            done: 0,
            total: stored.map(|(_, file)| file.content.len()).sum(),
            tell,
        }
    }

    fn count(&mut self, block: &Block) {
        self.done += u64::from(block.length);
    }

    fn tell(&self) {
        (self.tell)(Told::Contents(self.done, self.total));
    }
}

/// What the data pass leaves for the metadata.
struct Data<'a> {
    /// By file.
    stored: Vec<Stored>,
    /// Start and size of each fragment block.
    fragments: Vec<(u64, u32)>,
    summary: Summary,
    progress: Progress<'a>,
}

impl<'a> Data<'a> {
    fn new(material: &Material<'_>, tell: &'a dyn Fn(Told)) -> Self {
        let mut summary = Summary::default();
        for (index, file) in material.files.iter().enumerate() {
            summary.content_bytes += file.content.len();
            summary.duplicates += u32::from(!material.contents.is_stored(index));
        }
        Data {
            stored: vec![Stored::default(); material.files.len()],
            fragments: Vec::new(),
            summary,
            progress: Progress::new(material, tell),
        }
    }

    fn take<W: Target>(
        &mut self,
        finished: &Finished,
        store: Option<&dyn BlockStore>,
        output: &mut Output<W>,
    ) -> Result<()> {
        let mut position = output.position();
        for block in &finished.blocks {
            self.place(block, position)?;
            position += block.stored() as u64;
        }
        if let Some(store) = store {
            put_new(finished, store);
        }
        match finished.written {
            true => output.skip(position - output.position())?,
            false => output.write(finished.bytes())?,
        }
        for block in &finished.blocks {
            self.progress.count(block);
            self.summary.reused_blocks += u64::from(block.reused);
        }
        self.progress.tell();
        Ok(())
    }

    fn place(&mut self, block: &Block, position: u64) -> Result<()> {
        let Part::Data { file } = block.part else {
            self.fragments.push((position, block.size));
            self.summary.fragments += 1;
            return Ok(());
        };
        let Some(stored) = self.stored.get_mut(file) else {
            return Err(Error::internal(
                "a block of the SquashFS belongs to no file",
            ));
        };
        // Also a hole sets the start: a reader then never sees data before the data.
        if stored.sizes.is_empty() {
            stored.start = position;
        }
        stored.sizes.push(block.size);
        if block.size == 0 {
            stored.sparse += u64::from(block.length);
        } else {
            self.summary.blocks += 1;
        }
        Ok(())
    }
}

/// The metadata pass.
struct Metadata<'a> {
    tree: &'a Tree,
    options: &'a Options,
    numbering: &'a Numbering<'a>,
    representatives: &'a [usize],
    placements: &'a [Placement],
    stored: &'a [Stored],
    xattrs: Sets<'a>,
    ids: Ids,
    /// Where each inode is, by number - 1.
    places: Vec<Option<Reference>>,
}

impl Metadata<'_> {
    fn write<W: Target>(
        mut self,
        fragments: &[(u64, u32)],
        output: &mut Output<W>,
    ) -> Result<Superblock> {
        let (inode_table, directory_table) = self.encode_inodes()?;
        let mut superblock = Superblock {
            inodes: self.numbering.inodes(),
            mtime: inodes::time(self.options.mtime),
            fragments: fragments.len() as u32,
            ids: self.ids.list.len() as u16,
            has_xattrs: self.xattrs.len() > 0,
            root: self.place(self.tree.root())?,
            ..Superblock::default()
        };
        superblock.inode_table = output.position();
        output.write(&inode_table)?;
        superblock.directory_table = output.position();
        output.write(&directory_table)?;
        superblock.fragment_table = self.lookup(output, |out| {
            for (start, size) in fragments {
                out.put64(*start);
                out.put32(*size);
                out.put32(0);
            }
        })?;
        let places: Option<Vec<Reference>> = self.places.iter().copied().collect();
        let places = places.ok_or_else(no_place)?;
        superblock.export_table = self.lookup(output, |out| {
            places.iter().for_each(|place| out.put64(place.packed()));
        })?;
        superblock.id_table = self.lookup(output, |out| {
            self.ids.list.iter().for_each(|id| out.put32(*id));
        })?;
        superblock.xattr_table = self.xattrs.write(output, self.options)?;
        superblock.bytes = output.position();
        Ok(superblock)
    }

    fn lookup<W: Target>(
        &self,
        output: &mut Output<W>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64> {
        let mut entries = Vec::new();
        fill(&mut entries);
        write_lookup(output, &entries, self.options)
    }

    /// Both tables, packed. Inodes that are no directories come first: they depend on nothing, so their blocks are packed on
    /// all threads. A directory's listing needs the places of its entries, so directories follow from the deepest on.
    fn encode_inodes(&mut self) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut inode_table = Table::new(self.options)?;
        let mut directory_table = Table::new(self.options)?;
        self.encode_others(&mut inode_table)?;
        for id in self.numbering.directories.iter().rev() {
            self.encode_directory(*id, &mut inode_table, &mut directory_table)?;
        }
        Ok((inode_table.finish()?.0, directory_table.finish()?.0))
    }

    fn encode_others(&mut self, table: &mut Table) -> Result<()> {
        let mut bytes = Vec::new();
        let mut positions = Vec::new();
        for id in &self.numbering.order {
            if self.tree.inode(*id).as_directory().is_none() {
                positions.push((*id, bytes.len() as u64));
                self.encode_other(*id, &mut bytes)?;
            }
        }
        table.write_parallel(&bytes, self.options)?;
        for (id, position) in positions {
            self.set_place(id, table.reference(position)?)?;
        }
        Ok(())
    }

    fn encode_other(&mut self, id: InodeId, out: &mut Vec<u8>) -> Result<()> {
        let inode = self.tree.inode(id);
        let header = Header {
            meta: &inode.meta,
            number: self.numbering.number(id)?,
            links: self.numbering.names(id)?,
            xattrs: self.xattrs.place(id),
        };
        match &inode.kind {
            Kind::File(content) => {
                let file = self.numbering.file(id)?;
                let same = self.representatives.get(file);
                let place = same
                    .and_then(|&same| Some((self.placements.get(same)?, self.stored.get(same)?)));
                let (placement, stored) = place.ok_or_else(no_place)?;
                let tail = placement.tail;
                inodes::put_file(&header, content.len(), stored, tail, &mut self.ids, out)
            }
            kind => inodes::put_special(&header, kind, &mut self.ids, out),
        }
    }

    fn encode_directory(
        &mut self,
        id: InodeId,
        inode_table: &mut Table,
        directory_table: &mut Table,
    ) -> Result<()> {
        let inode = self.tree.inode(id);
        let entries: Vec<directories::Entry<'_>> = inode
            .as_directory()
            .into_iter()
            .flat_map(|entries| entries.iter())
            .map(|(name, child)| {
                Ok(directories::Entry {
                    name,
                    number: self.numbering.number(child)?,
                    inode: self.place(child)?,
                    kind: inodes::basic_type(&self.tree.inode(child).kind),
                })
            })
            .collect::<Result<_>>()?;
        let subdirectories = entries
            .iter()
            .filter(|entry| entry.kind == super::format::inode_type::DIRECTORY)
            .count();
        let listing = directories::write(directory_table, &entries)?;
        let header = Header {
            meta: &inode.meta,
            number: self.numbering.number(id)?,
            links: 1,
            xattrs: self.xattrs.place(id),
        };
        let facts = DirectoryFacts {
            start: listing.start,
            length: listing.length,
            parent: self.numbering.parent(id)?,
            subdirectories: subdirectories as u32,
            index: listing.index,
        };
        let mut bytes = Vec::new();
        inodes::put_directory(&header, &facts, &mut self.ids, &mut bytes)?;
        self.set_place(id, inode_table.reference(inode_table.position())?)?;
        inode_table.write(&bytes)
    }

    fn place(&self, id: InodeId) -> Result<Reference> {
        let place = self.places.get(self.numbering.number(id)? as usize - 1);
        place.copied().flatten().ok_or_else(no_place)
    }

    fn set_place(&mut self, id: InodeId, place: Reference) -> Result<()> {
        let index = self.numbering.number(id)? as usize - 1;
        *self.places.get_mut(index).ok_or_else(no_place)? = Some(place);
        Ok(())
    }
}

fn no_place() -> Error {
    Error::internal("an inode has no place in the SquashFS")
}
