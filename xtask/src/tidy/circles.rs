//! The files of a crate import in one direction: no two need each other, straight or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use super::{Findings, Tree, rust};

/// Files of a crate that stand in circles today. A number can only fall; an entry whose number is 0 goes.
const KNOWN: &[(&str, usize)] = &[];

/// Checks the sources of every crate, tests left out.
pub(super) fn check(tree: &Tree) -> Findings {
    let mut crates: BTreeMap<&str, Vec<Module<'_>>> = BTreeMap::new();
    let sources: Vec<(&Path, String)> = tree
        .sources()
        .filter(|(path, _)| !rust::is_test(path))
        .map(|(path, text)| (path, rust::blank(text)))
        .collect();
    for (path, code) in &sources {
        if let Some((home, module)) = Module::read(path, code) {
            crates.entry(home).or_default().push(module);
        }
    }
    let mut findings = Findings::new();
    for (home, modules) in &crates {
        let known = KNOWN.iter().find(|(known, _)| known == home);
        findings.extend(judge(home, modules, known.map_or(0, |(_, files)| *files)));
    }
    findings
}

/// What is to be said of a crate of which `known` files may stand in circles.
fn judge(home: &str, modules: &[Module<'_>], known: usize) -> Findings {
    let circles = circles(modules);
    let found: usize = circles.iter().map(|circle| circle.files.len()).sum();
    if found < known {
        return vec![format!(
            "{home}: {found} files in circles, not {known}: lower the number in {}",
            file!()
        )];
    }
    if found == known {
        return Findings::new();
    }
    circles.iter().map(|circle| circle.told(home)).collect()
}

/// Files that need each other, and what one takes from the other.
struct Circle {
    files: BTreeSet<PathBuf>,
    edges: Vec<String>,
}

impl Circle {
    fn told(&self, home: &str) -> String {
        format!(
            "{home}: {} files import each other; move what both need below them:\n    {}",
            self.files.len(),
            self.edges.join("\n    ")
        )
    }
}

fn circles(modules: &[Module<'_>]) -> Vec<Circle> {
    let edges = edges(modules);
    let next = |at: usize| edges.keys().filter(move |(from, _)| *from == at);
    let reach: Vec<BTreeSet<usize>> = (0..modules.len())
        .map(|start| {
            let mut seen = BTreeSet::new();
            let mut todo = vec![start];
            while let Some(at) = todo.pop() {
                todo.extend(next(at).map(|(_, to)| *to).filter(|to| seen.insert(*to)));
            }
            seen
        })
        .collect();
    let mut circles = Vec::new();
    let mut told = BTreeSet::new();
    for start in 0..modules.len() {
        if told.contains(&start) || !reach[start].contains(&start) {
            continue;
        }
        let together = |at: &usize| reach[*at].contains(&start);
        let members: BTreeSet<usize> = reach[start].iter().copied().filter(together).collect();
        let path = |at: &usize| modules[*at].path;
        let inside = edges
            .iter()
            .filter(|((from, to), _)| members.contains(from) && members.contains(to));
        let line = |((from, to), names): (&(usize, usize), &BTreeSet<&str>)| {
            let names: Vec<&str> = names.iter().copied().collect();
            let (from, to) = (path(from).display(), path(to).display());
            format!("{from} takes from {to}: {}", names.join(", "))
        };
        circles.push(Circle {
            files: members.iter().map(|at| path(at).to_path_buf()).collect(),
            edges: inside.map(line).collect(),
        });
        told.extend(members);
    }
    circles
}

/// The imports between files, as places in `modules`, and the names that are taken.
fn edges<'a>(modules: &[Module<'a>]) -> BTreeMap<(usize, usize), BTreeSet<&'a str>> {
    let house = House {
        places: modules
            .iter()
            .enumerate()
            .map(|(at, module)| (module.names.as_slice(), at))
            .collect(),
        modules,
    };
    let mut edges: BTreeMap<(usize, usize), BTreeSet<&str>> = BTreeMap::new();
    for (from, module) in modules.iter().enumerate() {
        let taken = module.imports.iter().map(|import| &import.path);
        for path in taken.chain(&module.paths) {
            let whole = house.absolute(from, path);
            if let Some(Found::Item(to, name)) = whole.and_then(|path| house.find(&path, 0))
                && !house.stands_in(from, to)
            {
                edges.entry((from, to)).or_default().insert(name);
            }
        }
        for glob in &module.globs {
            let whole = house.absolute(from, glob);
            if let Some(Found::Module(to)) = whole.and_then(|path| house.find(&path, 0))
                && !house.stands_in(from, to)
            {
                edges.entry((from, to)).or_default().insert("*");
            }
        }
    }
    edges
}

/// A source file: where it stands in its crate, what it defines, and what it takes from elsewhere.
struct Module<'a> {
    path: &'a Path,
    /// `["a", "b"]` for `src/a/b.rs` and for `src/a/b/mod.rs`.
    names: Vec<&'a str>,
    defined: BTreeSet<&'a str>,
    imports: Vec<Import<'a>>,
    globs: Vec<Vec<&'a str>>,
    /// Paths in the code, such as `super::a::b` and `child::c`.
    paths: Vec<Vec<&'a str>>,
}

/// A name in a file, and the path that it stands for.
struct Import<'a> {
    name: &'a str,
    path: Vec<&'a str>,
}

impl<'a> Module<'a> {
    /// Reads a blanked source; nothing where the file is no module of a crate's root.
    fn read(path: &'a Path, code: &'a str) -> Option<(&'a str, Module<'a>)> {
        let text = path.to_str()?;
        let (home, inside) = text.split_once("/src/")?;
        let inside = inside.strip_suffix(".rs")?;
        let inside = inside.strip_suffix("/mod").unwrap_or(inside);
        let names = match inside {
            "lib" | "main" => Vec::new(),
            _ if inside.starts_with("bin/") => return None,
            _ => inside.split('/').collect(),
        };
        let mut module = Module {
            path,
            names,
            defined: BTreeSet::new(),
            imports: Vec::new(),
            globs: Vec::new(),
            paths: Vec::new(),
        };
        let tokens = rust::without_tests(rust::tokens(code));
        module.scan(tokens.into_iter().peekable());
        Some((home.strip_prefix("crates/").unwrap_or(home), module))
    }

    /// Reads imports, paths and definitions. What stands in a module inside the file counts as the file's own.
    fn scan(&mut self, mut tokens: Tokens<'a>) {
        let mut before = "";
        let mut inner = Inner::default();
        while let Some(token) = tokens.next() {
            let next = tokens.peek().copied().unwrap_or("");
            match token {
                "use" => {
                    let (imports, globs) = (self.imports.len(), self.globs.len());
                    self.tree(&mut tokens, Vec::new());
                    let imports = self.imports.iter_mut().skip(imports);
                    imports.for_each(|import| inner.lift(&mut import.path));
                    self.globs
                        .iter_mut()
                        .skip(globs)
                        .for_each(|path| inner.lift(path));
                }
                "fn" | "struct" | "enum" | "trait" | "const" | "static" | "type" => {
                    self.defined.insert(next);
                }
                "mod" => inner.named = true,
                "{" | "}" | ";" => inner.read(token),
                _ if next == "::" && before != "::" && before != "." => {
                    let mut path = vec![token];
                    while tokens.next_if_eq(&"::").is_some() {
                        path.extend(tokens.next_if(|token| token.starts_with(rust::is_word)));
                    }
                    inner.lift(&mut path);
                    self.paths.push(path);
                }
                _ => {}
            }
            before = token;
        }
    }

    /// Reads what follows `use`: a path, or braces with several.
    fn tree(&mut self, tokens: &mut Tokens<'a>, mut path: Vec<&'a str>) {
        match tokens.next() {
            Some("{") => loop {
                match tokens.peek() {
                    Some(&"}") | None => {
                        tokens.next();
                        return;
                    }
                    Some(&",") => drop(tokens.next()),
                    Some(_) => self.tree(tokens, path.clone()),
                }
            },
            Some("*") => self.globs.push(path),
            Some(word) => {
                if word != "self" || path.is_empty() {
                    path.push(word);
                }
                if tokens.next_if_eq(&"::").is_some() {
                    return self.tree(tokens, path);
                }
                let renamed = tokens.next_if_eq(&"as").and_then(|_| tokens.next());
                let name = renamed.or(path.last().copied()).unwrap_or(word);
                self.imports.push(Import { name, path });
            }
            None => {}
        }
    }
}

type Tokens<'a> = Peekable<std::vec::IntoIter<&'a str>>;

/// The modules with a body of their own that a place in a file stands in.
#[derive(Default)]
struct Inner {
    /// A name was read, and its body may follow.
    named: bool,
    depth: usize,
    /// The depths at which they begin.
    begun: Vec<usize>,
}

impl Inner {
    fn read(&mut self, mark: &str) {
        if mark == "{" {
            if self.named {
                self.begun.push(self.depth);
            }
            self.depth += 1;
        } else if mark == "}" {
            self.depth = self.depth.saturating_sub(1);
            self.begun.pop_if(|begun| *begun == self.depth);
        }
        self.named = false;
    }

    /// Makes a path that leads out of them one of the file's own.
    fn lift(&self, path: &mut Vec<&str>) {
        let out = path.iter().take_while(|name| **name == "super").count();
        let out = out.min(self.begun.len());
        if out > 0 {
            path.splice(..out, ["self"]);
        }
    }
}

/// What a path leads to.
enum Found<'a> {
    Module(usize),
    /// Something that a file defines, by its name.
    Item(usize, &'a str),
}

/// All files of a crate by their place in it.
struct House<'m, 'a> {
    modules: &'m [Module<'a>],
    places: BTreeMap<&'m [&'a str], usize>,
}

/// More names for one thing than any crate has; a loop of imports ends here.
const MOST_NAMES: usize = 16;

impl<'a> House<'_, 'a> {
    /// Whether `file` is `folder` or stands in the folder whose face that file is.
    fn stands_in(&self, file: usize, folder: usize) -> bool {
        let names = |at: usize| self.modules.get(at).map(|module| &module.names);
        match (names(file), names(folder)) {
            (Some(file), Some(folder)) => file.starts_with(folder),
            _ => false,
        }
    }

    /// The path from the crate's root; nothing where it leads into another crate.
    fn absolute(&self, from: usize, path: &[&'a str]) -> Option<Vec<&'a str>> {
        let module = self.modules.get(from)?;
        let (first, rest) = path.split_first()?;
        let mut whole = match *first {
            "crate" => return Some(rest.to_vec()),
            _ => module.names.clone(),
        };
        let known = |name: &str| {
            let import = module.imports.iter().any(|import| import.name == name);
            let child = [module.names.as_slice(), &[name]].concat();
            import || self.places.contains_key(child.as_slice())
        };
        match *first {
            "self" => {}
            "super" => drop(whole.pop()?),
            name if known(name) => whole.push(first),
            _ => return None,
        }
        for name in rest {
            match *name {
                "super" => drop(whole.pop()?),
                name => whole.push(name),
            }
        }
        Some(whole)
    }

    /// Where the thing is defined that a path from the root names, through imports that only hand it on.
    fn find(&self, path: &[&'a str], names: usize) -> Option<Found<'a>> {
        let mut at = *self.places.get(&[][..])?;
        for (depth, name) in path.iter().enumerate() {
            let inside = path.get(..=depth)?;
            if let Some(child) = self.places.get(inside) {
                at = *child;
                continue;
            }
            let module = self.modules.get(at)?;
            if names == MOST_NAMES {
                return None;
            }
            if let Some(import) = module.imports.iter().find(|import| import.name == *name) {
                let mut whole = self.absolute(at, &import.path)?;
                whole.extend(path.get(depth + 1..)?);
                return self.find(&whole, names + 1);
            }
            let handed_on = || {
                module.globs.iter().find_map(|glob| {
                    let mut whole = self.absolute(at, glob)?;
                    whole.extend(path.get(depth..)?);
                    let found = self.find(&whole, names + 1)?;
                    let defines = |at: usize, name: &str| {
                        self.modules
                            .get(at)
                            .is_some_and(|module| module.defined.contains(name))
                    };
                    matches!(found, Found::Item(at, name) if defines(at, name)).then_some(found)
                })
            };
            let own = Found::Item(at, name);
            return if module.defined.contains(name) {
                Some(own)
            } else {
                handed_on().or(Some(own))
            };
        }
        Some(Found::Module(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Findings {
        let file = |(path, text): &(&str, &str)| {
            (format!("crates/x/src/{path}").into(), (*text).to_owned())
        };
        check(&Tree {
            files: files.iter().map(file).collect(),
        })
    }

    #[test]
    fn files_that_need_each_other_are_found() {
        let findings = found(&[
            ("lib.rs", "mod a; mod b; mod c; pub use b::B;"),
            ("a.rs", "use crate::{B, c};\nfn a() { c::f(); }"),
            ("b/mod.rs", "mod d;\npub struct B;\nfn b() { d::D::new() }"),
            (
                "b/d.rs",
                "struct D;\nfn f() { let _ = super::super::c::f; }",
            ),
            ("c.rs", "pub fn f() { crate::a::a() }"),
        ]);
        let lines: Vec<&str> = findings.iter().flat_map(|found| found.lines()).collect();
        assert_eq!(
            lines,
            [
                "x: 4 files import each other; move what both need below them:",
                "    crates/x/src/a.rs takes from crates/x/src/b/mod.rs: B",
                "    crates/x/src/a.rs takes from crates/x/src/c.rs: f",
                "    crates/x/src/b/mod.rs takes from crates/x/src/b/d.rs: D",
                "    crates/x/src/b/d.rs takes from crates/x/src/c.rs: f",
                "    crates/x/src/c.rs takes from crates/x/src/a.rs: a",
            ]
        );
    }

    #[test]
    fn names_that_are_only_handed_on_are_no_import() {
        let clean = [
            // The root hands on what stands in files below it, and they take it from the root.
            (
                "lib.rs",
                "mod a; mod b; pub use a::*; pub use self::b::{B, C as D};",
            ),
            ("a.rs", "use super::{B, D};\npub struct A;"),
            (
                "b.rs",
                "pub struct B;\npub struct C;\n#[cfg(test)]\nmod tests { use crate::A; }",
            ),
            // A module inside a file stands in the file.
            (
                "c.rs",
                "mod inner { use super::x; use super::super::a; fn f() { super::super::A } }",
            ),
        ];
        assert!(found(&clean).is_empty());
        let own = ("b.rs", "pub struct B;\nfn f() -> super::A { todo() }");
        assert_eq!(found(&[clean[0], clean[1], own]).len(), 1);
    }

    #[test]
    fn a_number_of_files_can_only_fall() {
        let code = [
            "use crate::b::B; struct A;",
            "use crate::a::A; struct B;",
            "",
        ];
        let paths = [
            "crates/x/src/a.rs",
            "crates/x/src/b.rs",
            "crates/x/src/lib.rs",
        ];
        let modules = || {
            let both = paths.iter().zip(code);
            let read = |(path, code)| Module::read(Path::new(path), code).unwrap().1;
            both.map(read).collect::<Vec<_>>()
        };
        assert_eq!(judge("x", &modules(), 0).len(), 1);
        assert!(judge("x", &modules(), 2).is_empty());
        assert_eq!(
            judge("x", &modules(), 3),
            ["x: 2 files in circles, not 3: lower the number in xtask/src/tidy/circles.rs"]
        );
    }
}
