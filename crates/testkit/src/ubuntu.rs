//! An archive in the layout of Ubuntu's, made of Debian's packages.
//!
//! It has the suites `noble`, `noble-updates` and `noble-security` with four components each; every package is compressed with
//! Zstandard. Packages that Ubuntu has otherwise are made over: the kernel and its modules are packages of their own under
//! `linux-image-generic`, the shim's package brings the key manager, GRUB looks for its files in `/EFI/ubuntu`, network-manager
//! leaves wired devices to others, `/etc/os-release` says Ubuntu. `firefox` does nothing but fail, as one that wants the snap store.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use kiln_digest::Sha256;

use crate::key::Key;
use crate::package::{Compression, Entry, Package};
use crate::server::date;

const COMPONENTS: [&str; 4] = ["main", "restricted", "universe", "multiverse"];
/// Packages of universe; all others are in main.
const UNIVERSE: &[&str] = &["live-boot", "live-boot-initramfs-tools", "live-tools"];
/// Packages of the task `lab-cli`.
const TASK: &[&str] = &["less", "nano"];

const OS_RELEASE: &str = "PRETTY_NAME=\"Ubuntu 24.04 LTS (made of Debian's packages by Kiln)\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\n\
    VERSION=\"24.04 LTS (Noble Numbat)\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=noble\n";
const UNMANAGED: &str =
    "[keyfile]\nunmanaged-devices=*,except:type:wifi,except:type:gsm,except:type:cdma\n";

/// A package file, its archives without compression.
struct Deb {
    control: Vec<u8>,
    data: Vec<u8>,
}

/// An entry of an archive, or what becomes of it.
struct Item {
    header: tar::Header,
    path: String,
    content: Vec<u8>,
}

/// Writes the archive below `root` from the package files in `packages`, whatever these are called.
///
/// # Errors
/// A package cannot be read, or a file not be written.
pub fn write(packages: &Path, root: &Path, key: &Key) -> io::Result<usize> {
    let mut debs = BTreeMap::new();
    for entry in fs::read_dir(packages)? {
        let bytes = fs::read(entry?.path())?;
        if bytes.starts_with(b"!<arch>\n") {
            let deb = Deb::read(&bytes)?;
            debs.insert(deb.field("Package")?, deb);
        }
    }
    let helpers = debs.remove("shim-helpers-amd64-signed");
    let manager = helpers.map(|deb| deb.content("./usr/lib/shim/mmx64.efi.signed"));
    let manager = manager.transpose()?;
    let mut stanzas: BTreeMap<(&str, &str), String> = BTreeMap::new();
    let mut count = 0;
    for (name, deb) in debs {
        for made in made_over(&name, deb, manager.as_deref())? {
            let name = made.field("Package")?;
            let is_universe = UNIVERSE.contains(&name.as_str());
            let component = if is_universe { "universe" } else { "main" };
            let stanza = put(root, component, &made)?;
            stanzas
                .entry(("noble", component))
                .or_default()
                .push_str(&stanza);
            count += 1;
        }
    }
    for (suite, package) in fabricated(key) {
        let deb = Deb::read(&package.build())?;
        let stanza = put(root, "main", &deb)?;
        stanzas
            .entry((suite, "main"))
            .or_default()
            .push_str(&stanza);
        count += 1;
    }
    for suite in ["noble", "noble-updates", "noble-security"] {
        write_suite(root, suite, &stanzas, key)?;
    }
    Ok(count)
}

/// Packages that Debian has no counterpart of, and the suites that have them.
fn fabricated(key: &Key) -> Vec<(&'static str, Package)> {
    let zstd = |mut package: Package| {
        package.compression = Compression::Zstd;
        package
    };
    let hello = |version: &str| zstd(Package::new("lab-hello", version));
    let keyring = Entry::file(
        "./usr/share/keyrings/ubuntu-archive-keyring.gpg",
        key.public_binary(),
    );
    let mut ring = zstd(Package::new("ubuntu-keyring", "2023.11.28.1"));
    ring = ring
        .entry(Entry::directory("./usr/share/keyrings/"))
        .entry(keyring);
    let meta = Package::new("linux-generic", "1").field("Depends", "linux-image-generic");
    let snap = "#!/bin/sh\necho 'Unable to contact the snap store' >&2\nexit 1\n";
    let firefox = Package::new("firefox", "1:1snap1-0ubuntu5").script("preinst", snap);
    vec![
        ("noble", ring),
        ("noble", zstd(meta)),
        ("noble", zstd(firefox)),
        ("noble", hello("1.0")),
        ("noble-updates", hello("1.1")),
        ("noble-security", hello("1.2")),
    ]
}

/// The package as Ubuntu has it: none, one, or several.
fn made_over(name: &str, mut deb: Deb, manager: Option<&[u8]>) -> io::Result<Vec<Deb>> {
    if TASK.contains(&name) {
        deb.control(|text| format!("{text}\nTask: lab-cli"))?;
    }
    match name {
        "busybox" | "debian-archive-keyring" => return Ok(Vec::new()),
        "apt" => deb.control(|text| text.replace("debian-archive-keyring", "ubuntu-keyring"))?,
        "firmware-linux-free" => deb.control(|text| rename(text, name, "linux-firmware"))?,
        "linux-image-amd64" => deb.control(|text| {
            let text = rename(text, name, "linux-image-generic");
            let generic = |line: &str| match line.starts_with("Depends:") {
                true => line.replace("-amd64", "-generic") + ", linux-firmware",
                false => line.to_owned(),
            };
            text.lines().map(generic).collect::<Vec<_>>().join("\n")
        })?,
        "base-files" => deb.items(|mut item| {
            if item.path == "./usr/lib/os-release" {
                item.content = OS_RELEASE.as_bytes().to_vec();
            }
            Some(item)
        })?,
        "shim-signed" => {
            let missing =
                || io::Error::other("shim-helpers-amd64-signed is not among the packages");
            shim(&mut deb, manager.ok_or_else(missing)?)?;
        }
        "grub-efi-amd64-signed" => deb.items(|mut item| {
            replace(&mut item.content, b"/EFI/debian", b"/EFI/ubuntu");
            Some(item)
        })?,
        "network-manager" => {
            let path = "./usr/lib/NetworkManager/conf.d/10-globally-managed-devices.conf";
            deb.add(path, UNMANAGED.as_bytes())?;
        }
        kernel if is_kernel(kernel) => return split_kernel(kernel, deb),
        _ => {}
    }
    Ok(vec![deb])
}

fn is_kernel(name: &str) -> bool {
    let rest = name.strip_prefix("linux-image-");
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn rename(text: &str, old: &str, new: &str) -> String {
    text.replacen(&format!("Package: {old}"), &format!("Package: {new}"), 1)
}

/// The signed loader under the name that it has before a script of the package makes a link to it, the key manager beside it.
fn shim(deb: &mut Deb, manager: &[u8]) -> io::Result<()> {
    deb.control(|text| {
        let without = |line: &str| match line.strip_prefix("Depends:") {
            Some(list) => {
                let kept = list.split(',').filter(|one| !one.contains("shim-helpers"));
                format!("Depends:{}", kept.collect::<Vec<_>>().join(","))
            }
            None => line.to_owned(),
        };
        text.lines().map(without).collect::<Vec<_>>().join("\n")
    })?;
    deb.items(|mut item| {
        if item.path == "./usr/lib/shim/shimx64.efi.signed" {
            item.path.push_str(".latest");
        }
        Some(item)
    })?;
    deb.add("./usr/lib/shim/mmx64.efi", manager)
}

/// The kernel, which only root can read, and its modules.
fn split_kernel(name: &str, mut image: Deb) -> io::Result<Vec<Deb>> {
    let release = name.trim_start_matches("linux-image-");
    let generic = format!("{}-generic", release.trim_end_matches("-amd64"));
    let modules_name = format!("linux-modules-{generic}");
    let version = image.field("Version")?;
    let mut modules = Deb {
        control: Vec::new(),
        data: image.data.clone(),
    };
    modules.items(|item| {
        let is_kept = item.path == "./" || item.path.starts_with("./lib/");
        is_kept.then_some(item)
    })?;
    let text = format!(
        "Package: {modules_name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Kiln test <test@example.org>\nSection: kernel\n\
         Priority: optional\nDescription: modules of the kernel {release}\n"
    );
    let mut control = tar::Builder::new(Vec::new());
    append(&mut control, Item::new("./control", text.into_bytes()))?;
    modules.control = control.into_inner()?;
    image.items(|mut item| {
        if item.path.starts_with("./boot/vmlinuz-") {
            item.header.set_mode(0o600);
        }
        let is_kept = ["./boot/", "./usr/"]
            .iter()
            .any(|place| item.path.starts_with(place));
        (is_kept || item.path == "./").then_some(item)
    })?;
    image.control(|text| {
        let text = rename(text, name, &format!("linux-image-{generic}"));
        text.replacen(
            "\nDepends: ",
            &format!("\nDepends: {modules_name} (= {version}), "),
            1,
        )
    })?;
    Ok(vec![image, modules])
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len(), "the same place");
    let mut at = 0;
    while at + old.len() <= bytes.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
        at += 1;
    }
}

impl Item {
    fn new(path: &str, content: Vec<u8>) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        Item {
            header,
            path: path.to_owned(),
            content,
        }
    }
}

impl Deb {
    fn read(bytes: &[u8]) -> io::Result<Self> {
        let (mut control, mut data) = (None, None);
        let mut rest = &bytes[8..];
        while rest.len() >= 60 {
            let name = String::from_utf8_lossy(&rest[..16]);
            let name = name.trim_end().trim_end_matches('/').to_owned();
            let size = String::from_utf8_lossy(&rest[48..58]);
            let size: usize = size.trim().parse().map_err(io::Error::other)?;
            let short = || io::Error::other(format!("{name} is cut off"));
            let content = rest.get(60..60 + size).ok_or_else(short)?;
            if name.starts_with("control.tar") {
                control = Some(plain(&name, content)?);
            } else if name.starts_with("data.tar") {
                data = Some(plain(&name, content)?);
            }
            rest = rest.get(60 + size + size % 2..).unwrap_or(&[]);
        }
        match (control, data) {
            (Some(control), Some(data)) => Ok(Deb { control, data }),
            _ => Err(io::Error::other("a package without an archive")),
        }
    }

    fn stanza(&self) -> io::Result<String> {
        let text = content(&self.control, "./control")?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        Ok(text.trim_end().to_owned())
    }

    fn field(&self, name: &str) -> io::Result<String> {
        let text = self.stanza()?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let missing = || io::Error::other(format!("a package without {name}"));
        value.map(str::to_owned).ok_or_else(missing)
    }

    fn content(&self, path: &str) -> io::Result<Vec<u8>> {
        content(&self.data, path)
    }

    /// Changes the control file. The sums of the data are left out: they would be others.
    fn control(&mut self, change: impl Fn(&str) -> String) -> io::Result<()> {
        let text = change(&self.stanza()?) + "\n";
        self.control = changed(&self.control, |mut item| match item.path.as_str() {
            "./md5sums" => None,
            "./control" => {
                item.content = text.clone().into_bytes();
                Some(item)
            }
            _ => Some(item),
        })?;
        Ok(())
    }

    /// Changes or removes entries of the data.
    fn items(&mut self, change: impl Fn(Item) -> Option<Item>) -> io::Result<()> {
        self.data = changed(&self.data, change)?;
        Ok(())
    }

    /// Adds a file behind all others, with the directories above it.
    fn add(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        each(&self.data, |item| append(&mut archive, item))?;
        let mut above: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        above.retain(|directory| directory.components().count() > 1);
        for directory in above.into_iter().rev() {
            let mut item = Item::new(&format!("{}/", directory.display()), Vec::new());
            item.header.set_entry_type(tar::EntryType::Directory);
            item.header.set_mode(0o755);
            append(&mut archive, item)?;
        }
        append(&mut archive, Item::new(path, content.to_vec()))?;
        self.data = archive.into_inner()?;
        Ok(())
    }

    fn build(&self) -> Vec<u8> {
        let zstd = Compression::Zstd;
        let mut file = b"!<arch>\n".to_vec();
        for (name, content) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.zst", zstd.compress(&self.control)),
            ("data.tar.zst", zstd.compress(&self.data)),
        ] {
            let size = content.len();
            file.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n",
                    0, 0, 0, 100_644
                )
                .bytes(),
            );
            file.extend(content);
            file.extend((size % 2 == 1).then_some(b'\n'));
        }
        file
    }
}

fn plain(name: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut reader: Box<dyn Read + '_> = match name.rsplit('.').next() {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(bytes)),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(bytes)),
        Some("zst") => Box::new(zstd::Decoder::new(bytes)?),
        _ => Box::new(bytes),
    };
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    Ok(text)
}

fn each(archive: &[u8], mut take: impl FnMut(Item) -> io::Result<()>) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        // Paths are read without their `./`.
        let path = match path.as_str() {
            "" | "." | "./" => "./".to_owned(),
            dotted if dotted.starts_with("./") => path,
            bare => format!("./{bare}"),
        };
        let mut header = entry.header().clone();
        if let Some(target) = entry.link_name()? {
            header.set_link_name(&target)?;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        take(Item {
            header,
            path,
            content,
        })?;
    }
    Ok(())
}

fn content(archive: &[u8], path: &str) -> io::Result<Vec<u8>> {
    let mut found = None;
    each(archive, |item| {
        if item.path == path {
            found = Some(item.content);
        }
        Ok(())
    })?;
    found.ok_or_else(|| io::Error::other(format!("an archive without {path}")))
}

fn changed(archive: &[u8], change: impl Fn(Item) -> Option<Item>) -> io::Result<Vec<u8>> {
    let mut result = tar::Builder::new(Vec::new());
    each(archive, |item| match change(item) {
        Some(item) => append(&mut result, item),
        None => Ok(()),
    })?;
    result.into_inner()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, item: Item) -> io::Result<()> {
    let Item {
        mut header,
        path,
        content,
    } = item;
    header.set_size(content.len() as u64);
    let field = &mut header.as_old_mut().name;
    if path.len() >= field.len() {
        return archive.append_data(&mut header, path, content.as_slice());
    }
    // By hand: the library would take the `./` away.
    *field = [0; 100];
    field[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    archive.append(&header, content.as_slice())
}

/// Writes a package file and returns its stanza for the index.
fn put(root: &Path, component: &str, deb: &Deb) -> io::Result<String> {
    let (name, version) = (deb.field("Package")?, deb.field("Version")?);
    let version = version.split_once(':').map_or(version.as_str(), |(_, v)| v);
    let path = format!(
        "pool/{component}/{}/{name}/{name}_{version}_{}.deb",
        &name[..1],
        deb.field("Architecture")?
    );
    let bytes = deb.build();
    save(&root.join(&path), &bytes)?;
    Ok(format!(
        "{}\nFilename: {path}\nSize: {}\nSHA256: {}\n\n",
        deb.stanza()?,
        bytes.len(),
        sum(&bytes)
    ))
}

fn write_suite(
    root: &Path,
    suite: &str,
    stanzas: &BTreeMap<(&str, &str), String>,
    key: &Key,
) -> io::Result<()> {
    let dists = root.join("dists").join(suite);
    let mut sums = String::new();
    for component in COMPONENTS {
        let text = stanzas.get(&(suite, component));
        let text = text.map_or("", String::as_str).as_bytes();
        let name = format!("{component}/binary-amd64/Packages");
        sums += &format!(" {} {} {name}\n", sum(text), text.len());
        for form in [Compression::Gzip, Compression::Xz] {
            let (name, bytes) = (format!("{name}{}", form.ending()), form.compress(text));
            sums += &format!(" {} {} {name}\n", sum(&bytes), bytes.len());
            let path = dists.join(&name);
            save(&path, &bytes)?;
            let by_hash = path.with_file_name("by-hash").join("SHA256");
            save(&by_hash.join(sum(&bytes)), &bytes)?;
        }
    }
    let release = format!(
        "Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nVersion: 24.04\nCodename: noble\nDate: {}\nArchitectures: amd64\n\
         Components: {}\nDescription: Ubuntu Noble 24.04\nAcquire-By-Hash: yes\nSHA256:\n{sums}",
        date(SystemTime::now(), "UTC"),
        COMPONENTS.join(" ")
    );
    save(&dists.join("InRelease"), &key.clearsign(&release))
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}
