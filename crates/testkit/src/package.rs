//! Fabricated Debian packages.

use std::fmt::Write as _;
use std::io::Write;

/// How a member of a package is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Returns the end of a file's name, with its dot.
    pub fn ending(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Xz => ".xz",
            Compression::Zstd => ".zst",
        }
    }

    /// Compresses.
    ///
    /// # Panics
    /// Never for data in memory.
    pub fn compress(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder
                    .write_all(bytes)
                    .and_then(|()| encoder.finish())
                    .expect("gzip in memory")
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder
                    .write_all(bytes)
                    .and_then(|()| encoder.finish())
                    .expect("xz in memory")
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).expect("zstd in memory"),
        }
    }
}

/// An entry of the data archive.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it stands in the archive, mostly beginning with `./`.
    pub path: String,
    /// Type.
    pub kind: tar::EntryType,
    /// Content of a file.
    pub content: Vec<u8>,
    /// Target of a link.
    pub target: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Entry {
    fn new(path: &str, kind: tar::EntryType, mode: u32) -> Self {
        Entry {
            path: path.to_owned(),
            kind,
            content: Vec::new(),
            target: String::new(),
            mode,
            owner: (0, 0),
            mtime: 1_600_000_000,
        }
    }

    /// Makes a file.
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Entry {
            content: content.into(),
            ..Entry::new(path, tar::EntryType::Regular, 0o644)
        }
    }

    /// Makes a directory.
    pub fn directory(path: &str) -> Self {
        Entry::new(path, tar::EntryType::Directory, 0o755)
    }

    /// Makes a symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Entry {
            target: target.to_owned(),
            ..Entry::new(path, tar::EntryType::Symlink, 0o777)
        }
    }

    /// Makes a hard link.
    pub fn hard_link(path: &str, target: &str) -> Self {
        Entry {
            target: target.to_owned(),
            ..Entry::new(path, tar::EntryType::Link, 0o644)
        }
    }

    /// Makes a fifo, device, or whatever the type says; a sparse file (`S`) has a hole of 4 GiB and no content.
    pub fn special(path: &str, kind: tar::EntryType) -> Self {
        Entry::new(path, kind, 0o644)
    }

    /// Sets other permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets another owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }
}

/// A binary package to be made.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// Further control fields, in order.
    pub fields: Vec<(String, String)>,
    /// Further files of the control archive.
    pub control: Vec<(String, Vec<u8>)>,
    /// The data archive.
    pub data: Vec<Entry>,
    /// Of both archives.
    pub compression: Compression,
}

impl Package {
    /// Makes a package with one small file.
    pub fn new(name: &str, version: &str) -> Self {
        let file = Entry::file(
            &format!("./usr/share/{name}/version"),
            format!("{version}\n"),
        );
        let directories = ["./", "./usr/", "./usr/share/"]
            .map(Entry::directory)
            .into_iter();
        let own = Entry::directory(&format!("./usr/share/{name}/"));
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "all".to_owned(),
            fields: Vec::new(),
            control: Vec::new(),
            data: directories.chain([own, file]).collect(),
            compression: Compression::Xz,
        }
    }

    /// Adds a control field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.data.push(entry);
        self
    }

    /// Adds a file to the control archive.
    #[must_use]
    pub fn script(mut self, name: &str, content: &str) -> Self {
        self.control
            .push((name.to_owned(), content.as_bytes().to_vec()));
        self
    }

    /// Sets another compression.
    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Returns `NAME_VERSION_ARCHITECTURE.deb`, a `:` as `%3a`.
    pub fn file_name(&self) -> String {
        format!(
            "{}_{}_{}.deb",
            self.name,
            self.version.replace(':', "%3a"),
            self.architecture
        )
    }

    /// Returns the control stanza.
    pub fn stanza(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Nobody <nobody@example.org>\n",
            self.name, self.version, self.architecture
        );
        for (name, value) in &self.fields {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        }
        if !self.fields.iter().any(|(name, _)| name == "Description") {
            text.push_str("Description: fabricated for a test\n");
        }
        text
    }

    /// Returns the package file.
    ///
    /// # Panics
    /// If an entry cannot be written as tar.
    pub fn build(&self) -> Vec<u8> {
        let mut control = vec![Entry::file("./control", self.stanza())];
        control.extend(
            self.control.iter().map(|(name, content)| {
                Entry::file(&format!("./{name}"), content.clone()).mode(0o755)
            }),
        );
        let mut bytes = b"!<arch>\n".to_vec();
        let ending = self.compression.ending();
        member(&mut bytes, "debian-binary", b"2.0\n");
        member(
            &mut bytes,
            &format!("control.tar{ending}"),
            &self.compression.compress(&tar_of(&control)),
        );
        member(
            &mut bytes,
            &format!("data.tar{ending}"),
            &self.compression.compress(&tar_of(&self.data)),
        );
        bytes
    }
}

fn member(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    archive.extend(
        format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            content.len()
        )
        .bytes(),
    );
    archive.extend(content);
    if content.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(entry.mtime);
        header.set_size(entry.content.len() as u64);
        if let (tar::EntryType::GNUSparse, Some(gnu)) = (entry.kind, header.as_gnu_mut()) {
            // A hole of 4 GiB.
            gnu.realsize[..11].copy_from_slice(b"40000000000");
            gnu.sparse[0].offset[..11].copy_from_slice(b"40000000000");
            gnu.sparse[0].numbytes[..1].copy_from_slice(b"0");
        }
        raw(&mut builder, &mut header, entry);
    }
    builder.into_inner().expect("a tar archive in memory")
}

/// Writes names as they are, also those that a careful library refuses (`../x`).
fn raw(builder: &mut tar::Builder<Vec<u8>>, header: &mut tar::Header, entry: &Entry) {
    let long = |kind: u8, text: &str| {
        let mut extra = tar::Header::new_gnu();
        extra.set_entry_type(tar::EntryType::new(kind));
        extra.as_gnu_mut().expect("a GNU header").name[..13].copy_from_slice(b"././@LongLink");
        extra.set_size(text.len() as u64 + 1);
        extra.set_cksum();
        extra
    };
    for (kind, text, room) in [(b'L', &entry.path, 100), (b'K', &entry.target, 100)] {
        if text.len() > room {
            let content = [text.as_bytes(), b"\0"].concat();
            builder
                .append(&long(kind, text), &content[..])
                .expect("tar in memory");
        }
    }
    let gnu = header.as_gnu_mut().expect("a GNU header");
    let fill = |field: &mut [u8], text: &str| {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text.as_bytes()[..length]);
    };
    fill(&mut gnu.name, &entry.path);
    fill(&mut gnu.linkname, &entry.target);
    header.set_cksum();
    builder
        .append(header, &entry.content[..])
        .expect("tar in memory");
}
