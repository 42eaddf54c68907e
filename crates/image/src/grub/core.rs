//! Making GRUB's core image for BIOS, without grub-mkimage.
//!
//! ```text
//! diskboot.img (512)      loads the rest; u16 at 0x1fc: sectors of the rest
//! lzma_decompress.img     at 0x08 u32 compressed size, 0x0c u32 uncompressed size
//! raw LZMA (dictionary 64 KiB, lc 3, lp 0, pb 2) of:
//!     kernel              the PT_LOAD bytes of kernel.img, linked to 0x9000
//!     {u32 "mimg", u32 12, u32 size of this and all objects}
//!     objects             {u32 type, u32 8 + padded size}, data padded to 4 bytes:
//!                         0 a module, 2 the configuration + NUL, 3 the prefix + NUL
//! ```
//!
//! Before compression the bytes are those of grub-mkimage, for the same modules. Source: GRUB 2.06, `include/grub/kernel.h`,
//! `util/mkimage.c`, `util/resolve.c`.

use std::collections::{BTreeMap, BTreeSet};

use liblzma::stream::{Action, Filters, LzmaOptions, Mode, Status, Stream};

use crate::error::{Error, ErrorKind, Result};

/// What a live disk needs before `grub.cfg` is read, and what `grub.cfg` uses: modules are not loaded from the disk.
pub const BIOS_MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "part_msdos",
    "fat",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "all_video",
    "echo",
    "ls",
    "cat",
    "test",
    "true",
    "sleep",
    "halt",
    "reboot",
    "minicmd",
    "serial",
    "terminal",
    "regexp",
    "smbios",
    "loadenv",
];

const KERNEL_LINK: u32 = 0x9000;
const MAGIC: u32 = 0x676d_696d;
const INFO_SIZE: usize = 12;
const DICTIONARY: u32 = 1 << 16;
/// Uncompressed, the kernel and its modules must fit below this (`GRUB_KERNEL_I386_PC_…`); a bound against nonsense.
const MAX_RAW: usize = 8 << 20;
const DECOMPRESSOR_SIZES: usize = 0x08;
const DISKBOOT_LENGTH: usize = 0x1fc;

mod object {
    pub(super) const MODULE: u32 = 0;
    pub(super) const CONFIG: u32 = 2;
    pub(super) const PREFIX: u32 = 3;
}

/// What goes into a core image.
pub struct CoreSpec<'a> {
    /// Reads a file of GRUB's `i386-pc` directory (`kernel.img`, `fat.mod`, `moddep.lst`).
    pub read: &'a dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    /// Names of modules; what they depend on comes along. Usually [`BIOS_MODULES`].
    pub modules: &'a [&'a str],
    /// Where GRUB looks for `grub.cfg`, usually [`super::prefix`].
    pub prefix: &'a str,
    /// Commands that run first, usually [`super::early_config`].
    pub config: &'a str,
}

/// Builds `core.img` for `i386-pc`.
///
/// # Errors
/// A file that is missing or is not what it should be, a module that does not exist, or an image that is too large.
pub fn build_core(spec: &CoreSpec) -> Result<Vec<u8>> {
    let raw = raw_core(spec)?;
    let packed = compress(&raw)?;
    let mut out = spec.file("diskboot.img")?;
    let mut decompressor = spec.file("lzma_decompress.img")?;
    let sectors = (decompressor.len() + packed.len()).div_ceil(512);
    let sectors =
        u16::try_from(sectors).map_err(|_| Error::input("GRUB's core image is too large"))?;
    patch(
        "diskboot.img",
        &mut out,
        DISKBOOT_LENGTH,
        &sectors.to_le_bytes(),
    )?;
    let sizes = [packed.len() as u32, raw.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    patch(
        "lzma_decompress.img",
        &mut decompressor,
        DECOMPRESSOR_SIZES,
        &sizes,
    )?;
    if out.len() != 512 {
        return Err(wrong("diskboot.img", "it has not 512 bytes"));
    }
    out.extend(decompressor);
    out.extend(packed);
    Ok(out)
}

impl CoreSpec<'_> {
    fn file(&self, name: &str) -> Result<Vec<u8>> {
        (self.read)(name).map_err(|e| {
            Error::io(format!("reading GRUB's file i386-pc/{name}"), e)
                .with_hint("the distribution's package of GRUB for BIOS has it")
        })
    }
}

/// The bytes that are compressed: kernel and objects.
fn raw_core(spec: &CoreSpec) -> Result<Vec<u8>> {
    let mut objects = Vec::new();
    for module in resolve(spec)? {
        let bytes = spec.file(&format!("{module}.mod"))?;
        push_object(&mut objects, object::MODULE, &bytes);
    }
    push_object(
        &mut objects,
        object::CONFIG,
        &with_nul("configuration", spec.config)?,
    );
    push_object(
        &mut objects,
        object::PREFIX,
        &with_nul("prefix", spec.prefix)?,
    );
    let mut raw = kernel(&spec.file("kernel.img")?)?;
    for word in [MAGIC, INFO_SIZE as u32, (INFO_SIZE + objects.len()) as u32] {
        raw.extend(word.to_le_bytes());
    }
    raw.extend(objects);
    if raw.len() > MAX_RAW {
        return Err(Error::input("GRUB's core image is too large"));
    }
    Ok(raw)
}

fn with_nul(what: &str, text: &str) -> Result<Vec<u8>> {
    if text.contains('\0') {
        return Err(Error::input(format!("GRUB's {what} contains a NUL byte")));
    }
    Ok([text.as_bytes(), &[0]].concat())
}

fn push_object(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    let padded = data.len().next_multiple_of(4);
    out.extend(kind.to_le_bytes());
    out.extend((padded as u32 + 8).to_le_bytes());
    out.extend(data);
    out.resize(out.len() + padded - data.len(), 0);
}

/// Modules with all that they depend on, dependencies first, in grub-mkimage's order.
fn resolve(spec: &CoreSpec) -> Result<Vec<String>> {
    let list = spec.file("moddep.lst")?;
    let list = String::from_utf8_lossy(&list);
    let depends: BTreeMap<&str, Vec<&str>> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, on)| (module.trim(), on.split_whitespace().collect()))
        .collect();
    let mut resolver = Resolver {
        depends: &depends,
        seen: BTreeSet::new(),
        order: Vec::new(),
    };
    for module in spec.modules {
        resolver.add(module)?;
    }
    Ok(resolver.order)
}

struct Resolver<'a> {
    depends: &'a BTreeMap<&'a str, Vec<&'a str>>,
    seen: BTreeSet<&'a str>,
    order: Vec<String>,
}

impl<'a> Resolver<'a> {
    fn add(&mut self, module: &str) -> Result<()> {
        let Some((name, on)) = self.depends.get_key_value(module) else {
            return Err(Error::input(format!(
                "GRUB has no module `{module}` for BIOS"
            )));
        };
        if self.seen.insert(name) {
            for dependency in on.iter().rev() {
                self.add(dependency)?;
            }
            self.order.push((*name).to_owned());
        }
        Ok(())
    }
}

/// The loadable bytes of kernel.img, an ELF program with one PT_LOAD segment at 0x9000.
fn kernel(elf: &[u8]) -> Result<Vec<u8>> {
    const PT_LOAD: u32 = 1;
    let bad = || wrong("kernel.img", "it is no 32-bit ELF program linked to 0x9000");
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?))
    };
    let half = |at: usize| -> Option<usize> {
        Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?).into())
    };
    if !elf.starts_with(b"\x7fELF\x01\x01") {
        return Err(bad());
    }
    let headers = || -> Option<(usize, usize, usize)> {
        Some((word(0x1c)? as usize, half(0x2a)?, half(0x2c)?))
    };
    let (start, size, count) = headers().ok_or_else(bad)?;
    for index in 0..count {
        let segment = || -> Option<(u32, usize, u32, usize)> {
            let at = start.checked_add(index * size)?;
            Some((
                word(at)?,
                word(at + 4)? as usize,
                word(at + 8)?,
                word(at + 16)? as usize,
            ))
        };
        let (kind, offset, address, len) = segment().ok_or_else(bad)?;
        if kind == PT_LOAD && address == KERNEL_LINK {
            let bytes = offset.checked_add(len).and_then(|end| elf.get(offset..end));
            return bytes.map(<[u8]>::to_vec).ok_or_else(bad);
        }
    }
    Err(bad())
}

fn compress(raw: &[u8]) -> Result<Vec<u8>> {
    let failed = |e| {
        Error::new(
            ErrorKind::Internal,
            format!("compressing GRUB's core image: {e}"),
        )
    };
    let mut options = LzmaOptions::new_preset(9).map_err(failed)?;
    options
        .dict_size(DICTIONARY)
        .literal_context_bits(3)
        .literal_position_bits(0)
        .position_bits(2)
        .mode(Mode::Normal);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut stream = Stream::new_raw_encoder(&filters).map_err(failed)?;
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 8 + 4096);
    match stream.process_vec(raw, &mut out, Action::Finish) {
        Ok(Status::StreamEnd) => Ok(out),
        Ok(_) => Err(Error::new(
            ErrorKind::Internal,
            "compressing GRUB's core image: it grew",
        )),
        Err(e) => Err(failed(e)),
    }
}

fn patch(name: &str, image: &mut [u8], at: usize, bytes: &[u8]) -> Result<()> {
    let part = image.get_mut(at..at + bytes.len());
    part.ok_or_else(|| wrong(name, "it is too short"))?
        .copy_from_slice(bytes);
    Ok(())
}

fn wrong(name: &str, why: &str) -> Error {
    Error::input(format!(
        "GRUB's i386-pc/{name} is not as it should be: {why}"
    ))
}
