//! All `%packages` sections as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Command, PackageRef, PackagesSection, Value, Version};

use super::header_text;

/// What the sections add up to.
#[derive(Default)]
struct Sum<'a> {
    environment: Option<&'a str>,
    /// Groups by name, with `--nodefaults` or `--optional`.
    groups: BTreeMap<String, &'static str>,
    /// Every mention counts, as in the reference.
    excluded_groups: Vec<String>,
    packages: BTreeSet<&'a str>,
    excluded: BTreeSet<&'a str>,
    /// The header of the last section: it decides about most options.
    last: Option<&'a Command>,
    default: bool,
    nocore_seen: bool,
    ignorebroken: bool,
    langs: Option<&'a str>,
}

/// Writes the sections, if there are any.
pub(super) fn write<'a>(
    out: &mut String,
    sections: impl Iterator<Item = &'a PackagesSection>,
    version: Version,
) {
    let mut sum = Sum::default();
    for section in sections {
        sum.add(section);
    }
    if let Some(last) = sum.last {
        sum.write_header(out, last, version);
        sum.write_items(out);
        out.push_str("\n%end\n");
    }
}

impl<'a> Sum<'a> {
    fn add(&mut self, section: &'a PackagesSection) {
        let header = &section.header;
        self.last = Some(header);
        self.default |= header.flag("--default");
        self.nocore_seen |= header.flag("--nocore");
        self.ignorebroken = header.flag("--ignorebroken");
        if let Some(langs) = header_text(header, "--inst-langs") {
            self.langs = Some(langs);
        }
        for item in &section.items {
            self.add_item(&item.what, item.exclude);
        }
    }

    fn add_item(&mut self, what: &'a PackageRef, exclude: bool) {
        match what {
            PackageRef::Package(name) if exclude => {
                self.packages.remove(name.as_str());
                self.excluded.insert(name);
            }
            PackageRef::Package(name) => {
                self.excluded.remove(name.as_str());
                self.packages.insert(name);
            }
            PackageRef::Environment(name) if exclude => match self.environment == Some(name) {
                true => self.environment = None,
                false => self.excluded_groups.push(format!("^{name}")),
            },
            PackageRef::Environment(name) => self.environment = Some(name),
            group => self.add_group(group, exclude),
        }
    }

    fn add_group(&mut self, what: &PackageRef, exclude: bool) {
        let (name, option) = group_text(what);
        if exclude {
            self.groups.remove(&name);
            self.excluded_groups.push(format!("{name}{option}"));
        } else {
            // The first mention decides about the option.
            self.groups.entry(name).or_insert(option);
        }
    }

    fn write_header(&self, out: &mut String, last: &Command, version: Version) {
        out.push_str("\n%packages");
        let mut switch = |on: bool, name: &str| {
            if on {
                out.push(' ');
                out.push_str(name);
            }
        };
        switch(self.default, "--default");
        switch(last.flag("--excludedocs"), "--excludedocs");
        switch(last.flag("--nocore"), "--nocore");
        switch(last.flag("--ignoremissing"), "--ignoremissing");
        switch(last.flag("--ignorebroken"), "--ignorebroken");
        let (langs, weak) = match version {
            Version::Rhel8 => ("--instLangs", "--excludeWeakdeps"),
            _ => ("--inst-langs", "--exclude-weakdeps"),
        };
        if let Some(words) = self.langs {
            switch(true, &format!("{langs}={words}"));
        }
        switch(last.flag("--multilib"), "--multilib");
        switch(last.flag("--exclude-weakdeps"), weak);
        for name in ["--timeout", "--retries"] {
            if let Some(Value::Int(number)) = crate::section::given(last, name) {
                switch(true, &format!("{name}={number}"));
            }
        }
        out.push('\n');
    }

    fn write_items(&self, out: &mut String) {
        let environment = self.environment.filter(|e| !e.is_empty() && !self.default);
        if let Some(environment) = environment {
            out.push_str(&format!("@^{environment}\n"));
        }
        let groups = self.groups.iter().map(|(n, o)| format!("@{n}{o}\n"));
        out.extend(groups);
        out.extend(self.packages.iter().map(|p| format!("{p}\n")));
        let mut excluded = self.excluded_groups.clone();
        excluded.sort_unstable();
        out.extend(excluded.iter().map(|g| format!("-@{g}\n")));
        out.extend(self.excluded.iter().map(|p| format!("-{p}\n")));
    }
}

/// A group or module as written, and its option.
fn group_text(what: &PackageRef) -> (String, &'static str) {
    match what {
        PackageRef::Group {
            name,
            nodefaults,
            optional,
        } => {
            let option = match (nodefaults, optional) {
                (true, _) => " --nodefaults",
                (_, true) => " --optional",
                _ => "",
            };
            (name.clone(), option)
        }
        PackageRef::Module {
            name,
            stream,
            profile,
        } => {
            let profile = profile.as_ref().map_or(String::new(), |p| format!("/{p}"));
            (format!("{name}:{stream}{profile}"), "")
        }
        PackageRef::Package(name) | PackageRef::Environment(name) => (name.clone(), ""),
    }
}
