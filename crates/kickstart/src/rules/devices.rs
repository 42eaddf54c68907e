//! Networks and special disks.

use super::Rules;
use crate::{Value, Version};

impl Rules<'_> {
    pub(super) fn network(&mut self) {
        self.needs("--bridgeopts", "--bridgeslaves");
        let pairs = self.command.text("--bridgeopts").unwrap_or("").split(',');
        let right = |pair: &str| {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            !value.is_empty() && !value.contains('=')
        };
        if self.given("--bridgeopts") && !pairs.into_iter().all(right) {
            let message =
                "`--bridgeopts` takes `key=value` pairs with commas between them".to_owned();
            let help = "write for example `--bridgeopts=priority=40000,hello-time=3`";
            self.error("bad-value", "--bridgeopts", message, help);
        }
        let bound = self.command.text("--bindto") == Some("mac");
        if bound && self.given("--vlanid") && !self.given("--bondopts") {
            let message = "a VLAN cannot be bound to a hardware address".to_owned();
            self.error(
                "conflicting-options",
                "--bindto",
                message,
                "remove `--bindto`",
            );
        }
        for name in [
            "--ipv4-dns-search",
            "--ipv6-dns-search",
            "--ipv4-ignore-auto-dns",
            "--ipv6-ignore-auto-dns",
        ] {
            self.needs(name, "--device");
        }
        self.once("network device", "--device");
    }

    pub(super) fn zfcp(&mut self) {
        let (port, unit) = (self.given("--wwpn"), self.given("--fcplun"));
        let old = self.version == Version::Rhel8;
        if !old && (!self.given("--devnum") || port != unit) {
            let message =
                "`zfcp` takes `--devnum` alone or with `--wwpn` and `--fcplun`".to_owned();
            self.error("missing-option", "", message, "give one or all three");
        }
        let names = ["--devnum", "--wwpn", "--fcplun"];
        let all = names.map(|n| self.command.text(n).unwrap_or("").to_owned());
        self.defined("zFCP device", all.join(" "), "--devnum");
    }

    pub(super) fn nvdimm(&mut self) {
        let action = self.arg(0).to_owned();
        let (name, devices) = (self.given("--namespace"), self.given("--blockdevs"));
        let (message, help) = match (action.as_str(), name, devices) {
            (_, true, true) => (
                "`--namespace` and `--blockdevs` exclude each other",
                "keep one of them",
            ),
            ("use", false, false) => (
                "`nvdimm use` needs `--namespace` or `--blockdevs`",
                "add one of them",
            ),
            ("reconfigure", false, _) => (
                "`nvdimm reconfigure` needs `--namespace`",
                "add `--namespace=…`",
            ),
            ("reconfigure", ..) if !self.given("--sectorsize") => (
                "`nvdimm reconfigure` in sector mode needs `--sectorsize`",
                "add `--sectorsize=…`",
            ),
            _ => ("", ""),
        };
        if !message.is_empty() {
            self.error("missing-option", "", message.to_owned(), help);
        }
        let namespace = self.command.text("--namespace").unwrap_or("");
        let mut options = self.command.options.iter();
        let devices = match options.rfind(|o| o.name == "--blockdevs").map(|o| &o.value) {
            Some(Value::List(words)) => words.join(","),
            _ => String::new(),
        };
        let name = format!("{action} {namespace}{devices}");
        self.defined("NVDIMM action", name, "");
    }
}
