//! Groups and environments of a distribution, as `comps.xml` has them.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::xml::{self, Attributes, Take};
use crate::Result;

/// What the groups of some repositories are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comps {
    /// Groups by id: `core`.
    pub groups: BTreeMap<String, Group>,
    /// Environments by id: `graphical-server-environment`.
    pub environments: BTreeMap<String, Environment>,
}

/// A group of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name for people, in English.
    pub name: String,
    /// Its packages.
    pub packages: Vec<(String, Member)>,
}

/// How a package belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// Always.
    Mandatory,
    /// Unless it is left out.
    Default,
    /// If it is asked for.
    Optional,
    /// If this package is there.
    Conditional(String),
}

/// An environment: groups that make a system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Its name for people, in English.
    pub name: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Groups that can be added, and whether they are unless they are left out.
    pub options: Vec<(String, bool)>,
}

impl Comps {
    /// Adds what another repository has. A group that several have gets the packages of all.
    pub fn join(&mut self, other: Comps) {
        for (id, group) in other.groups {
            let known = self.groups.entry(id).or_insert_with(|| Group {
                name: group.name,
                packages: Vec::new(),
            });
            for member in group.packages {
                if !known.packages.contains(&member) {
                    known.packages.push(member);
                }
            }
        }
        for (id, environment) in other.environments {
            self.environments.entry(id).or_insert(environment);
        }
    }
}

/// Reads the groups. `what` names the document for messages.
///
/// # Errors
/// [`crate::ErrorKind::Malformed`] with the byte where it is, [`crate::ErrorKind::Io`].
pub(super) fn read(what: &str, input: impl BufRead) -> Result<Comps> {
    let mut reading = Reading::default();
    xml::read(what, input, &mut reading)?;
    Ok(reading.comps)
}

#[derive(Default)]
struct Reading {
    comps: Comps,
    id: String,
    group: Group,
    environment: Environment,
    member: Option<Member>,
    /// Whether an option is one unless it is left out.
    is_default: bool,
    /// Whether a text is one for people who read another language.
    is_translation: bool,
}

impl Take for Reading {
    fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String> {
        match path {
            "comps/group/packagelist/packagereq" => {
                self.member = Some(match attributes.get("type") {
                    Some("mandatory") => Member::Mandatory,
                    Some("default") => Member::Default,
                    // What has no type is optional, as dnf has it.
                    Some("optional") | None => Member::Optional,
                    Some("conditional") => {
                        let requires = attributes
                            .get("requires")
                            .ok_or("has a conditional package without a condition")?;
                        Member::Conditional(requires.to_owned())
                    }
                    Some(other) => {
                        return Err(format!("has a package of the unknown type {other:.40?}"));
                    }
                });
            }
            "comps/environment/optionlist/groupid" => {
                self.is_default = attributes.get("default") == Some("true")
            }
            "comps/group/name" | "comps/environment/name" => {
                self.is_translation = attributes.get("lang").is_some()
            }
            _ if !path.starts_with("comps") => return Err("is no list of groups".into()),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, path: &str, text: &str) -> Result<(), String> {
        let text = text.to_owned();
        match path {
            "comps/group/id" | "comps/environment/id" => self.id = text,
            "comps/group/name" if !self.is_translation => self.group.name = text,
            "comps/environment/name" if !self.is_translation => self.environment.name = text,
            "comps/group/packagelist/packagereq" => self
                .group
                .packages
                .extend(self.member.take().map(|member| (text, member))),
            "comps/environment/grouplist/groupid" => self.environment.groups.push(text),
            "comps/environment/optionlist/groupid" => {
                self.environment.options.push((text, self.is_default))
            }
            "comps/group" => {
                let (id, group) = (self.id()?, std::mem::take(&mut self.group));
                let mut one = Comps::default();
                one.groups.insert(id, group);
                self.comps.join(one);
            }
            "comps/environment" => {
                let (id, environment) = (self.id()?, std::mem::take(&mut self.environment));
                if self
                    .comps
                    .environments
                    .insert(id.clone(), environment)
                    .is_some()
                {
                    return Err(format!("has the environment {id:.80} twice"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Reading {
    fn id(&mut self) -> Result<String, String> {
        let id = std::mem::take(&mut self.id);
        match id.is_empty() || id.contains(char::is_whitespace) {
            true => Err(format!(
                "has a group or an environment with the id {id:.80?}"
            )),
            false => Ok(id),
        }
    }
}
