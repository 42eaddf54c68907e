//! GRUB as we install it, judged by grub-mkimage, grub-script-check, and by booting: SeaBIOS and OVMF start it, it reads our FAT
//! volume and our menu, and starts a kernel of 87 bytes that says what it was given.

mod outsiders;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_image::disk::*;
use kiln_image::fat::{FatImage, FatSpec, FatTree, Source};
use kiln_image::grub::*;
use outsiders::{check, file_of, noise, run, text, tool};
use uuid::Uuid;

const BIOS_DIR: &str = "/usr/lib/grub/i386-pc";

fn bios_file(name: &str) -> std::io::Result<Vec<u8>> {
    fs::read(file_of("grub-pc-bin", &format!("{BIOS_DIR}/{name}")))
}

fn core(prefix: &str, config: &str) -> Vec<u8> {
    build_core(&CoreSpec {
        read: &bios_file,
        modules: BIOS_MODULES,
        prefix,
        config,
    })
    .unwrap()
}

/// 32-bit code that writes its command line, a blank and a checksum of its initial RAM disk (rotate left by one, add the byte) in
/// hexadecimal to the first serial port, and leaves QEMU through isa-debug-exit.
///
/// ```text
/// mov $0x3f8,%edx; mov 0x228(%esi),%edi; 1: mov (%edi),%al; inc %edi; test %al,%al; jz 2f; out %al,(%dx); jmp 1b
/// 2: mov 0x218(%esi),%edi; mov 0x21c(%esi),%ecx; xor %ebx,%ebx; xor %eax,%eax; jecxz 4f
/// 3: mov (%edi),%al; rol %ebx; add %eax,%ebx; inc %edi; dec %ecx; jnz 3b; 4: mov $' ',%al; out %al,(%dx); mov $8,%ecx
/// 5: rol $4,%ebx; mov %bl,%al; and $15,%al; add $'0',%al; cmp $'9',%al; jbe 6f; add $39,%al; 6: out %al,(%dx); loop 5b
/// mov $'\n',%al; out %al,(%dx); mov $0xf4,%edx; out %al,(%dx); 7: hlt; jmp 7b
/// ```
const CODE: [u8; 87] = [
    0xba, 0xf8, 0x03, 0x00, 0x00, 0x8b, 0xbe, 0x28, 0x02, 0x00, 0x00, 0x8a, 0x07, 0x47, 0x84, 0xc0,
    0x74, 0x03, 0xee, 0xeb, 0xf6, 0x8b, 0xbe, 0x18, 0x02, 0x00, 0x00, 0x8b, 0x8e, 0x1c, 0x02, 0x00,
    0x00, 0x31, 0xdb, 0x31, 0xc0, 0xe3, 0x0a, 0x8a, 0x07, 0xd1, 0xc3, 0x01, 0xc3, 0x47, 0x49, 0x75,
    0xf6, 0xb0, 0x20, 0xee, 0xb9, 0x08, 0x00, 0x00, 0x00, 0xc1, 0xc3, 0x04, 0x88, 0xd8, 0x24, 0x0f,
    0x04, 0x30, 0x3c, 0x39, 0x76, 0x02, 0x04, 0x27, 0xee, 0xe2, 0xee, 0xb0, 0x0a, 0xee, 0xba, 0xf4,
    0x00, 0x00, 0x00, 0xee, 0xf4, 0xeb, 0xfd,
];

/// A bzImage round [`CODE`] (Linux, Documentation/arch/x86/boot.rst, protocol 2.10).
fn kernel() -> Vec<u8> {
    let mut image = vec![0u8; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020au16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x1000u32.to_le_bytes());
    put(0x234, &[1, 12]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x1_0000u32.to_le_bytes());
    image.extend(CODE);
    image.resize(2048, 0);
    image
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0u32, |sum, b| sum.rotate_left(1).wrapping_add((*b).into()))
}

fn entry(id: &str, title: &str, arguments: &str) -> Entry {
    Entry {
        id: id.into(),
        title: title.into(),
        kernel: "/live/vmlinuz-6.1.0-28-amd64".into(),
        initrd: vec!["/live/initrd.img-6.1.0-28-amd64".into()],
        arguments: split_kernel_arguments(arguments).unwrap(),
        frame_buffer: id == "safe",
    }
}

fn menu() -> Menu {
    Menu {
        entries: vec![
            entry(
                "start",
                "Start 'the' $lab; {halt} \"now\"",
                r#"boot=live $prefix ;halt x="a b" {} *"#,
            ),
            entry("ram", "Start into RAM", "boot=live toram"),
            entry("safe", "Safe graphics", "boot=live nomodeset"),
        ],
        default: "start".into(),
        timeout: Some(2),
        serial: Some(Serial {
            unit: 0,
            speed: 115_200,
        }),
        firmware_arguments: true,
    }
}

struct Boot {
    dir: tempfile::TempDir,
    disk: PathBuf,
    initrd: Vec<u8>,
}

/// A disk as `kiln build` makes it, with `config` as its grub.cfg.
fn disk(table: Table, config: &str) -> Boot {
    let initrd = noise(3_333_333, 42);
    let fat = FatSpec {
        volume_id: 0xb007_cafe,
        label: "KILN".into(),
        time: 1_700_000_000,
    };
    let mut tree = FatTree::new();
    tree.add_file("boot/grub/grub.cfg", config).unwrap();
    tree.add_file("live/vmlinuz-6.1.0-28-amd64", kernel())
        .unwrap();
    tree.add_file("live/initrd.img-6.1.0-28-amd64", initrd.clone())
        .unwrap();
    efi_files().add_to(&mut tree, &fat.uuid()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let size = FatImage::size_for(&tree, Bytes::mib(1)).unwrap();
    let guid = |n: u128| Uuid::from_u128(n);
    let mut layout = LayoutBuilder::new(table);
    if let Table::Gpt { .. } = table {
        let bios = PartitionSpec::new("BIOS", PartitionType::BIOS_BOOT, guid(1));
        layout.add(bios, Bytes::mib(1)).unwrap();
    }
    let esp =
        PartitionSpec::new("EFI", PartitionType::EFI_SYSTEM, guid(2)).with(Attributes::LEGACY_BOOT);
    let place = layout.add(esp, size).unwrap();
    let layout = layout.finish(Rounding::TIGHT).unwrap();
    let number = layout.partitions().last().unwrap().number;
    let prefix = prefix(&table, number);
    let image = FatImage::new(&tree, &fat, place.len()).unwrap();
    image.write(&file, place.offset(), &mut |_| Ok(())).unwrap();
    layout.write(&file).unwrap();
    let core = core(&prefix, &early_config(&fat.uuid()));
    write_bios_boot(
        &file,
        core_extent(&layout).unwrap(),
        &bios_file("boot.img").unwrap(),
        &core,
    )
    .unwrap();
    Boot {
        dir,
        disk: path,
        initrd,
    }
}

fn efi_files() -> EfiFiles {
    let open = |package, path| Source::open(&file_of(package, path)).unwrap();
    EfiFiles {
        shim: Some(open("shim-signed", "/usr/lib/shim/shimx64.efi.signed")),
        grub: open(
            "grub-efi-amd64-signed",
            "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        ),
        mok_manager: Some(open(
            "shim-helpers-amd64-signed",
            "/usr/lib/shim/mmx64.efi.signed",
        )),
        prefix: "/EFI/debian".into(),
    }
}

impl Boot {
    /// Boots in software emulation until QEMU ends; gives what came out of the serial port, without terminal sequences.
    fn run(&self, extra: &[&str]) -> String {
        let log = self.dir.path().join("serial");
        let mut qemu = tool("qemu-system-x86_64");
        qemu.args([
            "-accel",
            "tcg",
            "-m",
            "384",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ])
        .args([
            "-net",
            "none",
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=1",
        ])
        .args(["-serial", &format!("file:{}", text(&log))])
        .args(["-drive", &format!("file={},format=raw", text(&self.disk))])
        .args(extra);
        wait(&mut qemu, &log);
        plain(&fs::read(&log).unwrap())
    }

    fn uefi(&self, code: &str, vars: &str, extra: &[&str]) -> String {
        let code = file_of("ovmf", &format!("/usr/share/OVMF/{code}"));
        let own = self.dir.path().join("vars");
        fs::copy(file_of("ovmf", &format!("/usr/share/OVMF/{vars}")), &own).unwrap();
        let code = format!("if=pflash,format=raw,readonly=on,file={}", text(&code));
        let vars = format!("if=pflash,format=raw,file={}", text(&own));
        let drives = ["-drive", &code, "-drive", &vars];
        self.run(&[&drives[..], extra].concat())
    }

    /// What the kernel says about its initial RAM disk if all of it arrived.
    fn proof(&self) -> String {
        format!("{:08x}", checksum(&self.initrd))
    }
}

fn wait(qemu: &mut Command, log: &Path) {
    let started = Instant::now();
    let mut child = qemu.spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
            child.wait().unwrap();
            let said = plain(&fs::read(log).unwrap_or_default());
            panic!("QEMU did not end within 300 s; the serial port said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Text without escape sequences and carriage returns.
fn plain(raw: &[u8]) -> String {
    let mut out = String::new();
    let text = String::from_utf8_lossy(raw);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                let _ = chars.by_ref().skip(1).find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}

const GPT: Table = Table::Gpt {
    disk: Uuid::from_u128(5),
};

#[test]
fn bios_boots_from_gpt_with_arguments_from_the_firmware() {
    let boot = disk(GPT, &menu().render().unwrap());
    let oem = format!(
        "type=11,value={}",
        smbios_boot("ram", "console=ttyS0,,115200 $root;halt")
    );
    let said = boot.run(&["-smbios", &oem]);
    let expected = format!(
        "BOOT_IMAGE=/live/vmlinuz-6.1.0-28-amd64 boot=live toram console=ttyS0,115200 $root;halt {}",
        boot.proof()
    );
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn bios_boots_from_mbr_through_the_menu() {
    let boot = disk(
        Table::Mbr {
            signature: 0x1234_5678,
        },
        &menu().render().unwrap(),
    );
    let oem = format!("type=11,value={}", smbios_append("norandmaps"));
    let said = boot.run(&[
        "-smbios",
        "type=11,value=io.systemd.credential:a=b",
        "-smbios",
        &oem,
    ]);
    let expected = format!(
        "boot=live $prefix ;halt \"x=a b\" {{}} * norandmaps {}",
        boot.proof()
    );
    assert!(said.contains(&expected), "{said}");
    for title in [
        "Start 'the' $lab; {halt} \"now\"",
        "Start into RAM",
        "Safe graphics",
    ] {
        assert!(said.contains(title), "`{title}` is not in the menu: {said}");
    }
}

#[test]
fn uefi_boots_through_shim() {
    let boot = disk(GPT, &menu().render().unwrap());
    let oem = format!("type=11,value={}", smbios_boot("safe", ""));
    let said = boot.uefi(
        "OVMF_CODE_4M.fd",
        "OVMF_VARS_4M.fd",
        &["-machine", "q35", "-smbios", &oem],
    );
    let expected = format!("boot=live nomodeset {}", boot.proof());
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn secure_boot_starts_the_signed_grub() {
    let config = "echo \"MARK $grub_platform $prefix\"\nls /live\nhalt\n";
    let boot = disk(GPT, config);
    let said = boot.uefi(
        "OVMF_CODE_4M.secboot.fd",
        "OVMF_VARS_4M.ms.fd",
        &[
            "-machine",
            "q35,smm=on",
            "-global",
            "driver=cfi.pflash01,property=secure,value=on",
        ],
    );
    assert!(said.contains("MARK efi (hd0,gpt2)/boot/grub"), "{said}");
    assert!(said.contains("vmlinuz-6.1.0-28-amd64"), "{said}");
}

/// The core image before compression.
fn unpack(core: &[u8]) -> Vec<u8> {
    use liblzma::stream::{Action, Filters, LzmaOptions, Stream};
    let decompressor = fs::metadata(file_of(
        "grub-pc-bin",
        &format!("{BIOS_DIR}/lzma_decompress.img"),
    ))
    .unwrap();
    let start = 512 + decompressor.len() as usize;
    let size = u32::from_le_bytes(core[512 + 12..512 + 16].try_into().unwrap()) as usize;
    let mut options = LzmaOptions::new_preset(6).unwrap();
    options.dict_size(1 << 16);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut out = Vec::with_capacity(size);
    Stream::new_raw_decoder(&filters)
        .unwrap()
        .process_vec(&core[start..], &mut out, Action::Run)
        .unwrap();
    assert_eq!(out.len(), size);
    out
}

#[test]
fn the_core_image_is_grub_mkimages_before_compression() {
    let dir = tempfile::tempdir().unwrap();
    let (config, image) = (dir.path().join("early.cfg"), dir.path().join("core.img"));
    let early = early_config("B007-CAFE");
    fs::write(&config, &early).unwrap();
    let mut args = vec!["-O", "i386-pc", "-d", BIOS_DIR, "-p", "(,gpt2)/boot/grub"];
    args.extend(["-c", text(&config), "-o", text(&image)]);
    args.extend(BIOS_MODULES);
    run("grub-mkimage", args);
    let theirs = fs::read(image).unwrap();
    let ours = core("(,gpt2)/boot/grub", &early);
    assert!(unpack(&ours) == unpack(&theirs));
    assert!(
        ours.len() <= theirs.len() + 512,
        "{} against {}",
        ours.len(),
        theirs.len()
    );
    let sectors =
        |image: &[u8]| u16::from_le_bytes(image[0x1fc..0x1fe].try_into().unwrap()) as usize;
    assert_eq!(sectors(&theirs), theirs.len().div_ceil(512) - 1);
    assert_eq!(sectors(&ours), ours.len().div_ceil(512) - 1);
}

#[test]
fn boot_sectors_lie_as_grub_bios_setup_lays_them() {
    let file = tempfile::tempfile().unwrap();
    let (old, boot) = (noise(512, 1), bios_file("boot.img").unwrap());
    file.write_all_at(&old, 0).unwrap();
    let place = Extent {
        start: Lba(2048),
        sectors: Sectors(2048),
    };
    let image = core("/boot/grub", "");
    write_bios_boot(&file, place, &boot, &image).unwrap();
    let mut sector = vec![0; 512];
    file.read_exact_at(&mut sector, 0).unwrap();
    let mut expected = boot;
    expected[0x03..=0x59].copy_from_slice(&old[0x03..=0x59]);
    expected[0x1b8..=0x1fd].copy_from_slice(&old[0x1b8..=0x1fd]);
    expected[0x5c..0x65].copy_from_slice(&[0, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    expected[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    assert_eq!(sector, expected);
    let mut first = vec![0; 512];
    file.read_exact_at(&mut first, 2048 * 512).unwrap();
    let mut expected = image[..512].to_vec();
    expected[0x1e8..0x1f4].fill(0);
    let rest = (image.len().div_ceil(512) - 1) as u16;
    expected[0x1f4..0x1fc].copy_from_slice(&2049u64.to_le_bytes());
    expected[0x1fc..0x1fe].copy_from_slice(&rest.to_le_bytes());
    expected[0x1fe..].copy_from_slice(&[0x20, 8]);
    assert_eq!(first, expected);
}

#[test]
fn places_and_images_that_do_not_fit_are_refused() {
    let file = tempfile::tempfile().unwrap();
    let boot = bios_file("boot.img").unwrap();
    let place = |sectors| Extent {
        start: Lba(1),
        sectors: Sectors(sectors),
    };
    assert!(write_bios_boot(&file, place(62), &boot, &vec![0; 100_000]).is_err());
    assert!(write_bios_boot(&file, place(2047), &boot[..511], &vec![0; 100_000]).is_err());
    assert!(write_bios_boot(&file, place(2047), &[0; 512], &vec![0; 100_000]).is_err());
    assert!(write_bios_boot(&file, place(2047), &boot, &[0; 512]).is_err());
    assert!(write_bios_boot(&file, place(9999), &boot, &vec![0; 1 << 20]).is_err());
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[test]
fn foreign_files_are_refused_and_missing_ones_named() {
    let with = |name: &'static str, bytes: Vec<u8>| {
        let read = move |wanted: &str| {
            if wanted == name {
                Ok(bytes.clone())
            } else {
                bios_file(wanted)
            }
        };
        let spec = CoreSpec {
            read: &read,
            modules: &["fat"],
            prefix: "/",
            config: "",
        };
        build_core(&spec).map(|_| ()).unwrap_err().to_string()
    };
    let elf = bios_file("kernel.img").unwrap();
    for cut in [0, 4, 51, 60, 1000] {
        assert!(
            with("kernel.img", elf[..cut].to_vec()).contains("kernel.img"),
            "{cut}"
        );
    }
    let mut far = elf.clone();
    far[0x1c..0x20].fill(0xff);
    with("kernel.img", far);
    with("diskboot.img", vec![0; 100]);
    with("lzma_decompress.img", vec![0; 8]);
    assert!(with("moddep.lst", Vec::new()).contains("no module `fat`"));
    let nothing = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let spec = CoreSpec {
        read: &nothing,
        modules: &["fat"],
        prefix: "/",
        config: "",
    };
    let error = build_core(&spec).unwrap_err();
    assert_eq!(error.to_string(), "reading GRUB's file i386-pc/moddep.lst");
}

#[test]
fn grub_accepts_every_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grub.cfg");
    let mut menus = vec![menu()];
    menus[0].entries[0].initrd.clear();
    menus.push(Menu {
        timeout: None,
        serial: None,
        firmware_arguments: false,
        ..menu()
    });
    menus.push(Menu {
        timeout: Some(0),
        ..menu()
    });
    for title in [
        "'",
        "''",
        "$(a)",
        "`a`",
        "\\",
        "\\'",
        "{ } ; & | < >",
        "🌱 Grüße",
        "#",
        "!\"§$%&/()=?",
        "",
    ] {
        let mut odd = menu();
        odd.entries[1].title = title.into();
        odd.entries[2].kernel = format!("/{title}x");
        menus.push(odd);
    }
    for menu in menus {
        fs::write(&path, menu.render().unwrap()).unwrap();
        let mut command = tool("grub-script-check");
        command.arg(&path);
        let output = command.output().unwrap();
        check(&command, &output);
    }
}
