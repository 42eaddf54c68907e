//! The text that GRUB reads.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::quote::{kernel_argument, word};
use crate::disk::Table;
use crate::error::{Error, Result};

/// Longest kernel command line on x86, without its NUL (`COMMAND_LINE_SIZE`).
const MAX_COMMAND_LINE: usize = 2047;

/// A boot menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Menu {
    /// The entries, first on top.
    pub entries: Vec<Entry>,
    /// Id of the entry that starts by itself.
    pub default: String,
    /// Seconds until then; `None` waits for ever, `Some(0)` shows no menu (Esc still does).
    pub timeout: Option<u32>,
    /// Shows the menu on a serial port too (BIOS; UEFI firmware redirects its console by itself).
    pub serial: Option<Serial>,
    /// Whether the firmware's OEM string can add kernel arguments (see the module's documentation).
    pub firmware_arguments: bool,
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What [`Menu::default`] and [`smbios_boot`] call it: letters, digits, `-` and `_`.
    pub id: String,
    /// What people see.
    pub title: String,
    /// Path of the kernel on the EFI system partition: `/live/vmlinuz`.
    pub kernel: String,
    /// Paths of initial RAM disks, unpacked one over the other.
    pub initrd: Vec<String>,
    /// Kernel arguments, one each, without quotes ([`super::split_kernel_arguments`]).
    pub arguments: Vec<String>,
    /// Starts the kernel with a frame buffer that the firmware set up, for when no driver does it (`nomodeset`). Without it, BIOS
    /// machines start in text mode; UEFI machines always have one.
    pub frame_buffer: bool,
}

/// A serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    /// 0 for the first (ttyS0).
    pub unit: u8,
    /// Bits per second.
    pub speed: u32,
}

impl Entry {
    fn check_id(&self) -> Result<()> {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.id.is_empty() || !self.id.chars().all(fine) {
            return Err(Error::input(format!(
                "`{}` cannot be the id of a boot menu entry: use letters, digits, - and _",
                self.id.escape_debug()
            )));
        }
        Ok(())
    }

    fn render(&self, out: &mut String) -> Result<()> {
        self.check_id()?;
        let title = word("the menu title", &self.title)?;
        let mut linux = word("the kernel's path", &self.kernel)?;
        for argument in &self.arguments {
            linux.push(' ');
            linux += &kernel_argument(argument)?;
        }
        self.check_length()?;
        let _ = writeln!(out, "menuentry {title} --id {} {{", self.id);
        if self.frame_buffer {
            out.push_str("  set gfxpayload='1024x768x32,1024x768,800x600x32,800x600,auto'\n");
        }
        let _ = writeln!(out, "  linux {linux} $kiln_arguments");
        if !self.initrd.is_empty() {
            let paths: Result<Vec<String>> =
                self.initrd.iter().map(|p| word("the path", p)).collect();
            let _ = writeln!(out, "  initrd {}", paths?.join(" "));
        }
        out.push_str("}\n");
        Ok(())
    }

    /// `BOOT_IMAGE=/path` and the arguments, with quotes where GRUB puts them.
    fn check_length(&self) -> Result<()> {
        let quotes = |argument: &str| if argument.contains(' ') { 2 } else { 0 };
        let arguments: usize = self.arguments.iter().map(|a| 1 + a.len() + quotes(a)).sum();
        let length = "BOOT_IMAGE=".len() + self.kernel.len() + arguments;
        if length > MAX_COMMAND_LINE {
            return Err(Error::input(format!(
                "the kernel arguments of the menu entry `{}` have {length} bytes, the kernel reads {MAX_COMMAND_LINE}",
                self.title.escape_debug()
            )));
        }
        Ok(())
    }
}

impl Menu {
    /// Returns the text of `/boot/grub/grub.cfg`.
    ///
    /// Titles, paths and arguments are quoted: whatever is in them, GRUB evaluates nothing of it.
    ///
    /// # Errors
    /// No entry, two with the same id, a default that does not exist, control characters, or arguments that GRUB or the kernel cannot take.
    pub fn render(&self) -> Result<String> {
        self.check()?;
        let mut out = String::from("# Written by Kiln.\nset kiln_arguments=\n");
        if let Some(serial) = self.serial {
            serial.render(&mut out);
        }
        let _ = writeln!(out, "set default={}", self.default);
        match self.timeout {
            Some(0) => out.push_str("set timeout_style=hidden\nset timeout=0\n"),
            Some(seconds) => {
                let _ = writeln!(out, "set timeout_style=menu\nset timeout={seconds}");
            }
            None => out.push_str("set timeout_style=menu\nset timeout=-1\n"),
        }
        if self.firmware_arguments {
            out.push_str(FIRMWARE_ARGUMENTS);
        }
        for entry in &self.entries {
            out.push('\n');
            entry.render(&mut out)?;
        }
        Ok(out)
    }

    fn check(&self) -> Result<()> {
        if !self.entries.iter().any(|e| e.id == self.default) {
            return Err(Error::input(format!(
                "the boot menu has no entry `{}`, which should start by itself",
                self.default.escape_debug()
            )));
        }
        for (index, entry) in self.entries.iter().enumerate() {
            if self
                .entries
                .iter()
                .skip(index + 1)
                .any(|e| e.id == entry.id)
            {
                return Err(Error::input(format!(
                    "the boot menu has two entries `{}`",
                    entry.id
                )));
            }
        }
        Ok(())
    }
}

impl Serial {
    fn render(self, out: &mut String) {
        let Serial { unit, speed } = self;
        let _ = write!(
            out,
            "if [ \"$grub_platform\" = pc ]; then\n  \
               if serial --unit={unit} --speed={speed}; then\n    \
                 terminal_input --append serial\n    \
                 terminal_output --append serial\n  \
               fi\n\
             fi\n"
        );
    }
}

/// Offset 4 of a type 11 structure is the number of its strings, so that `--get-string 4` gives the last one.
const FIRMWARE_ARGUMENTS: &str = r#"set kiln_oem=
if smbios --type 11 --get-string 4 --set kiln_oem; then
  if regexp --set 1:kiln_arguments '^kiln\.append=(.*)$' "$kiln_oem"; then
    set kiln_entry=
  elif regexp --set 1:kiln_entry --set 2:kiln_arguments '^kiln\.boot=([A-Za-z0-9_-]+) ?(.*)$' "$kiln_oem"; then
    set default="$kiln_entry"
    set timeout_style=hidden
    set timeout=0
  fi
fi
"#;

/// Returns where GRUB has its directory on the disk that it was started from: `(,gpt2)/boot/grub` for the second partition of a GPT.
pub fn prefix(table: &Table, number: u32) -> String {
    let table = match table {
        Table::Gpt { .. } => "gpt",
        Table::Mbr { .. } => "msdos",
    };
    format!("(,{table}{number})/boot/grub")
}

/// Returns the commands inside core.img: find the partition, then go on to its `grub.cfg`. `uuid` is the FAT volume id as
/// [`crate::fat::FatSpec::uuid`] returns it.
///
/// GRUB has set `$root` from [`super::CoreSpec::prefix`] before, so that a disk that was copied boots from itself; the search
/// is for firmware that hides where it booted from.
pub fn early_config(uuid: &str) -> String {
    format!(
        "search --no-floppy --fs-uuid --set=root --hint=$root {uuid}\nset prefix=($root)/boot/grub\n"
    )
}

/// The `grub.cfg` that a signed GRUB, which has its prefix built in, reads first.
pub(super) fn efi_stub(uuid: &str) -> String {
    format!(
        "if [ ! -f ($root)/boot/grub/grub.cfg ]; then\n  \
           search --no-floppy --fs-uuid --set=root {uuid}\n\
         fi\n\
         set prefix=($root)/boot/grub\n\
         source ($root)/boot/grub/grub.cfg\n"
    )
}

/// Returns the OEM string that adds kernel arguments to one boot (see the module's documentation).
pub fn smbios_append(arguments: &str) -> String {
    format!("kiln.append={arguments}")
}

/// Returns the OEM string that starts an entry at once, with kernel arguments added.
pub fn smbios_boot(entry: &str, arguments: &str) -> String {
    match arguments {
        "" => format!("kiln.boot={entry}"),
        arguments => format!("kiln.boot={entry} {arguments}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> Entry {
        Entry {
            id: id.into(),
            title: "it's $(reboot) {".into(),
            kernel: "/live/vmlinuz".into(),
            initrd: vec!["/live/initrd.img".into()],
            arguments: vec!["boot=live".into(), "dyndbg=file x +p".into()],
            frame_buffer: false,
        }
    }

    fn menu(entries: Vec<Entry>) -> Menu {
        Menu {
            default: "start".into(),
            entries,
            timeout: Some(5),
            serial: None,
            firmware_arguments: false,
        }
    }

    #[test]
    fn an_entry_reads_like_this() {
        let text = menu(vec![entry("start")]).render().unwrap();
        let expected = "# Written by Kiln.\nset kiln_arguments=\nset default=start\nset timeout_style=menu\nset timeout=5\n\n\
            menuentry 'it'\\''s $(reboot) {' --id start {\n  \
            linux '/live/vmlinuz' 'boot=live' 'dyndbg=file x +p' $kiln_arguments\n  \
            initrd '/live/initrd.img'\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn wrong_menus_are_refused() {
        assert!(menu(vec![]).render().is_err());
        assert!(menu(vec![entry("start"), entry("start")]).render().is_err());
        assert!(menu(vec![entry("start"), entry("a b")]).render().is_err());
        assert!(menu(vec![entry("other")]).render().is_err());
        let mut long = entry("start");
        long.arguments = vec!["x".repeat(2000)];
        assert!(menu(vec![long.clone()]).render().is_ok());
        long.arguments = vec!["x".repeat(2048)];
        assert!(menu(vec![long]).render().is_err());
        let mut lines = entry("start");
        lines.title = "a\nb".into();
        assert!(menu(vec![lines]).render().is_err());
    }
}
