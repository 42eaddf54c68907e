//! What a `network` line says about a connection.

use super::address::Addresses;
use super::keyfile::{Keyfile, escape, ssid, uuid};
use super::members::Kind;
use crate::configure::draft::Draft;
use crate::configure::firewall::is_interface;

/// One connection, checked.
#[derive(Debug)]
pub(super) struct Profile {
    device: Device,
    kind: Kind,
    vlan: Option<u16>,
    vlan_name: Option<String>,
    pub(super) ssid: Option<String>,
    wpa_key: Option<String>,
    mtu: Option<u32>,
    on_boot: bool,
    addresses: Addresses,
}

/// Which device a profile is for.
#[derive(Debug, PartialEq)]
enum Device {
    /// Any that has a link.
    Any,
    Name(String),
    Mac(String),
}

impl Profile {
    /// Reads a line; `None` after an error notice.
    pub(super) fn read(draft: &mut Draft<'_>) -> Option<Profile> {
        let device = device(draft)?;
        let kind = Kind::read(draft)?;
        let named = matches!(device, Device::Name(_));
        let vlan = vlan(draft)?;
        if !named && (vlan.is_some() || !matches!(kind, Kind::Plain)) {
            draft.error(
                "names no device for its bond, bridge, team or VLAN",
                "give --device=NAME",
            );
            return None;
        }
        if draft.command.has("--bindto") && !matches!(device, Device::Mac(_)) {
            draft.warn(
                "--bindto=mac has no effect: the machine's address is not known",
                "give the address as --device",
            );
        }
        let text = |name: &str| {
            draft
                .command
                .text(name)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        let (ssid, wpa_key) = (text("--essid"), text("--wpakey"));
        if let Some(key) = &wpa_key
            && !(8..=64).contains(&key.len())
        {
            draft.error(
                "--wpakey: not a WPA key",
                "a passphrase has 8 to 63 letters, a raw key 64 hexadecimal digits",
            );
            return None;
        }
        Some(Profile {
            vlan_name: interface_name(draft)?,
            mtu: mtu(draft)?,
            on_boot: on_boot(draft),
            addresses: Addresses::read(draft)?,
            device,
            kind,
            vlan,
            ssid,
            wpa_key,
        })
    }

    pub(super) fn is_team(&self) -> bool {
        matches!(self.kind, Kind::Team { .. })
    }

    /// The profile's file, before it those of the devices that it joins or rides on.
    pub(super) fn keyfiles(&self) -> Vec<Keyfile> {
        let mut files = self.members();
        let carrier = !matches!(self.kind, Kind::Plain);
        if self.vlan.is_some() && carrier {
            // The addresses are the VLAN's, so the bond, bridge or team below has none.
            let mut below = self.base(self.id());
            Addresses::none(&mut below);
            files.push(below);
        }
        let mut file = match self.vlan {
            Some(id) => self.vlan(id),
            None => self.base(self.id()),
        };
        self.addresses.write(&mut file);
        files.push(file);
        files
    }

    /// The device's name, or what else tells profiles apart.
    fn id(&self) -> String {
        match (&self.ssid, &self.device) {
            (Some(ssid), _) => ssid.clone(),
            (None, Device::Name(name)) => name.clone(),
            (None, Device::Mac(mac)) => mac.replace(':', "-"),
            (None, Device::Any) => "link".to_owned(),
        }
    }

    fn base(&self, id: String) -> Keyfile {
        let wired = if self.ssid.is_some() {
            "wifi"
        } else {
            "ethernet"
        };
        let kind = self.kind.word().unwrap_or(wired);
        let mut file = Keyfile::new(&id, kind);
        match &self.device {
            Device::Name(name) => file.set("connection", "interface-name", name.clone()),
            Device::Mac(mac) => file.set(wired, "mac-address", mac.clone()),
            // 3 = multiple: the profile may be up on every such device, but a fixed address only on one.
            Device::Any if !self.addresses.is_fixed() => {
                file.set("connection", "multi-connect", "3")
            }
            Device::Any => {}
        }
        if !self.on_boot {
            file.set("connection", "autoconnect", "false");
        }
        if let Some(mtu) = self.mtu {
            file.set(wired, "mtu", mtu.to_string());
        }
        self.wireless(&mut file);
        for (key, value) in self.kind.settings() {
            file.set(kind, &key, value);
        }
        file
    }

    fn wireless(&self, file: &mut Keyfile) {
        let Some(name) = &self.ssid else { return };
        file.set("wifi", "mode", "infrastructure");
        file.set("wifi", "ssid", ssid(name));
        if let Some(key) = &self.wpa_key {
            file.set("wifi-security", "key-mgmt", "wpa-psk");
            file.set_secret("wifi-security", "psk", key);
        }
    }

    fn vlan(&self, vlan: u16) -> Keyfile {
        let parent = self.id();
        let name = self
            .vlan_name
            .clone()
            .unwrap_or_else(|| format!("{parent}.{vlan}"));
        let mut file = Keyfile::new(&name, "vlan");
        file.set("connection", "interface-name", name);
        if !self.on_boot {
            file.set("connection", "autoconnect", "false");
        }
        file.set("vlan", "id", vlan.to_string());
        file.set("vlan", "parent", parent);
        file
    }

    /// Profiles of the devices that a bond, bridge or team joins.
    fn members(&self) -> Vec<Keyfile> {
        let master = self.id();
        let member = |(index, (name, config)): (usize, (&str, &str))| {
            let mut file = Keyfile::new(&format!("{master}_slave_{}", index + 1), "ethernet");
            file.set("connection", "interface-name", name);
            file.set("connection", "master", uuid(&master));
            file.set("connection", "slave-type", self.kind.word().unwrap_or(""));
            if !config.is_empty() {
                file.set("team-port", "config", escape(config));
            }
            file
        };
        self.kind
            .members()
            .into_iter()
            .enumerate()
            .map(member)
            .collect()
    }
}

fn device(draft: &mut Draft<'_>) -> Option<Device> {
    let said = draft.command.text("--device").unwrap_or("link");
    if matches!(said, "" | "link" | "bootif" | "ibft") {
        return Some(Device::Any);
    }
    let octets: Vec<&str> = said.split(':').collect();
    if octets.len() == 6
        && octets
            .iter()
            .all(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Some(Device::Mac(said.to_ascii_uppercase()));
    }
    if is_interface(said) {
        return Some(Device::Name(said.to_owned()));
    }
    let hint = "give a device's name (enp1s0), its hardware address, or `link` for any";
    draft.error(format!("--device={said}: not a network device"), hint);
    None
}

fn interface_name(draft: &mut Draft<'_>) -> Option<Option<String>> {
    let Some(said) = draft
        .command
        .text("--interfacename")
        .filter(|n| !n.is_empty())
    else {
        return Some(None);
    };
    if draft.command.text("--vlanid").is_none() {
        draft.warn(
            "--interfacename has no effect without --vlanid",
            "it names a VLAN's device",
        );
    }
    if !is_interface(said) {
        draft.error(
            format!("--interfacename={said}: not the name of a network device"),
            "use up to 15 letters",
        );
        return None;
    }
    Some(Some(said.to_owned()))
}

fn vlan(draft: &mut Draft<'_>) -> Option<Option<u16>> {
    let Some(said) = draft.command.text("--vlanid") else {
        return Some(None);
    };
    match said.parse::<u16>() {
        Ok(id) if id < 4095 => Some(Some(id)),
        _ => {
            draft.error(
                format!("--vlanid={said}: not a VLAN"),
                "VLANs are numbered from 0 to 4094",
            );
            None
        }
    }
}

fn mtu(draft: &mut Draft<'_>) -> Option<Option<u32>> {
    let said = draft
        .command
        .text("--mtu")
        .map(str::to_owned)
        .or_else(|| draft.command.int("--mtu").map(|n| n.to_string()));
    let Some(said) = said.filter(|s| !s.is_empty()) else {
        return Some(None);
    };
    match said.parse::<u32>() {
        Ok(mtu) if (68..=65535).contains(&mtu) => Some(Some(mtu)),
        _ => {
            draft.error(
                format!("--mtu={said}: not a packet size"),
                "sizes are from 68 to 65535 bytes",
            );
            None
        }
    }
}

fn on_boot(draft: &Draft<'_>) -> bool {
    use kiln_kickstart::Value;
    let last = draft
        .command
        .options
        .iter()
        .rev()
        .find(|o| o.name == "--onboot");
    match last.map(|o| &o.value) {
        Some(Value::Flag(on)) => *on,
        Some(Value::Int(number)) => *number != 0,
        Some(Value::Text(text)) => !matches!(
            text.to_ascii_lowercase().as_str(),
            "no" | "off" | "false" | "0"
        ),
        _ => true,
    }
}
