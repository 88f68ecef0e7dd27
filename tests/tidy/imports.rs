//! The imports of the workspace: crates in one order, and no cycle between files.
//!
//! `core ← config ← runtime ← admin ← {bin, sim}`. Inside a crate, a file and its own submodules may import each other;
//! for every other pair, the modules below their common parent are compared, and those must not form a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{block_length, without_literals, without_tests};

/// A crate: its name in code, the folder of its sources, and its place in the order.
struct Package {
    name: &'static str,
    folder: &'static str,
    rank: u8,
}

/// Every crate, also those that do not exist yet. A crate may import those of a lower rank.
const PACKAGES: [Package; 7] = [
    package("eddy_core", "core", 0),
    package("eddy_config", "runtime/config", 1),
    package("eddy_runtime", "runtime", 2),
    package("eddy_admin", "runtime/admin", 3),
    package("eddy_sim", "sim", 4),
    package("eddy", "bin/eddy", 4),
    package("eddy_sim_binary", "bin/eddy-sim", 5),
];

const fn package(name: &'static str, folder: &'static str, rank: u8) -> Package {
    Package { name, folder, rank }
}

type Module = Vec<String>;

/// One import, with the place that it is from.
#[derive(Debug)]
struct Import {
    from: Module,
    to: Module,
    place: String,
}

impl Package {
    /// The folder of the sources, if the crate exists.
    fn sources(&self) -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.folder);
        let is_binary = self.folder.starts_with("bin/");
        if !is_binary && !root.join("Cargo.toml").exists() {
            return None;
        }
        let src = root.join("src");
        Some(if src.exists() { src } else { root })
    }

    /// Every file that is not for tests alone: its module, its path, and its code.
    fn files(&self) -> BTreeMap<Module, (String, String)> {
        let Some(root) = self.sources() else {
            return BTreeMap::new();
        };
        let (mut folders, mut files) = (vec![root.clone()], BTreeMap::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of the repository") {
                let path = entry.expect("an entry").path();
                let is_crate = path.join("Cargo.toml").exists();
                if path.is_dir() && !is_crate {
                    folders.push(path);
                    continue;
                }
                let within = path.strip_prefix(&root).expect("a path below its root");
                let module = module_of(within);
                let is_rust = path.extension().is_some_and(|ext| ext == "rs");
                if is_rust && !module.iter().any(|name| name == "tests") {
                    let text = fs::read_to_string(&path).expect("a source file");
                    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
                    let name = path
                        .strip_prefix(repository)
                        .unwrap_or(&path)
                        .display()
                        .to_string();
                    files.insert(module, (name, without_tests(&without_literals(&text))));
                }
            }
        }
        files
    }
}

fn module_of(path: &Path) -> Module {
    let mut names: Module = path
        .with_extension("")
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if names
        .last()
        .is_some_and(|name| matches!(&**name, "mod" | "lib" | "main"))
    {
        names.pop();
    }
    names
}

/// Takes the inline modules out of a module's code.
fn inline_modules(module: &Module, code: &str) -> Vec<(Module, String)> {
    let (mut own, mut rest, mut found) = (String::new(), code, Vec::new());
    while let Some(at) = find_word(rest, "mod") {
        let behind = &rest[at + "mod".len()..];
        let name = behind.trim_start();
        let length = name
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        let (name, body) = name.split_at(length);
        own += &rest[..at];
        rest = behind;
        if body.trim_start().starts_with('{') {
            let body = body.trim_start();
            let (block, after) = body.split_at(block_length(body));
            let inner = [module.clone(), vec![name.to_owned()]].concat();
            found.extend(inline_modules(&inner, block));
            rest = after;
        }
    }
    own += rest;
    found.push((module.clone(), own));
    found
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .find(|at| !text[..*at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// Every path that a module names: those of its `use` lines, and those that begin with `crate`, `super` or a crate's name.
fn paths(code: &str) -> Vec<Module> {
    let (mut rest, mut others, mut found) = (code, String::new(), Vec::new());
    while let Some(at) = find_word(rest, "use") {
        others += &rest[..at];
        rest = &rest[at + "use".len()..];
        // `impl Trait + use<'a>` imports nothing.
        if rest.trim_start().starts_with('<') {
            continue;
        }
        let (tree, after) = rest.split_once(';').unwrap_or((rest, ""));
        let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        expand(&tree, &mut found);
        rest = after;
    }
    others += rest;
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let inline = others.split(|c| !is_part(c)).filter(|path| path.contains("::"));
    found.extend(inline.map(segments));
    found
}

fn expand(tree: &str, found: &mut Vec<Module>) {
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        found.push(segments(path));
        return;
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut from) = (0_usize, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                let part = group[from..at].trim();
                if !part.is_empty() {
                    expand(&format!("{prefix}{part}"), found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

fn segments(path: &str) -> Module {
    let path = path.trim().trim_start_matches("::");
    path.split("::").map(|name| name.trim().to_owned()).collect()
}

/// The module that a path of another module leads to, as far as it has a file.
fn target(module: &Module, path: &[String], files: &BTreeSet<&Module>) -> Option<Module> {
    let first = path.first()?;
    let mut base = module.clone();
    let mut names = path;
    match &**first {
        "crate" => (base, names) = (Module::new(), &path[1..]),
        "self" => names = &path[1..],
        "super" => {
            while names.first().is_some_and(|name| name == "super") {
                base.pop();
                names = &names[1..];
            }
        }
        _ => return None,
    }
    base.extend(names.iter().cloned());
    while !files.contains(&base) {
        base.pop()?;
    }
    Some(base)
}

/// The imports between the files of a crate.
fn imports(files: &BTreeMap<Module, (String, String)>) -> Vec<Import> {
    let known: BTreeSet<&Module> = files.keys().collect();
    let mut found = Vec::new();
    for (file, (name, code)) in files {
        for (module, code) in inline_modules(file, code) {
            for path in paths(&code) {
                if let Some(to) = target(&module, &path, &known) {
                    found.push(Import {
                        from: file.clone(),
                        to,
                        place: format!("{name}: {}", path.join("::")),
                    });
                }
            }
        }
    }
    found
}

/// The cycles between modules that are not each other's parents, with the imports that form them.
fn cycles(imports: &[Import]) -> BTreeMap<String, Vec<&str>> {
    type Edges<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;
    let mut levels: BTreeMap<&[String], Edges<'_>> = BTreeMap::new();
    for Import { from, to, place } in imports {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let (Some(a), Some(b)) = (from.get(common), to.get(common)) else {
            continue;
        };
        let edges = levels.entry(&from[..common]).or_default();
        edges.entry((a, b)).or_default().push(place);
    }
    let mut found = BTreeMap::new();
    for (level, edges) in levels {
        let modules: BTreeSet<&str> = edges.keys().flat_map(|(a, b)| [*a, *b]).collect();
        let reach: BTreeMap<&str, BTreeSet<&str>> = modules
            .iter()
            .map(|module| (*module, reachable(module, &edges)))
            .collect();
        for module in &modules {
            let cycle: Vec<&str> = reach[module]
                .iter()
                .copied()
                .filter(|other| reach[other].contains(module))
                .collect();
            if cycle.is_empty() {
                continue;
            }
            let is_inside = |(a, b): &(&str, &str)| cycle.contains(a) && cycle.contains(b);
            let places = edges.iter().filter(|(edge, _)| is_inside(edge));
            let places = places.flat_map(|(_, places)| places.iter().copied()).collect();
            let parent: String = level.iter().map(|name| format!("{name}::")).collect();
            found.insert(format!("{parent}{{{}}}", cycle.join(", ")), places);
        }
    }
    found
}

/// The modules that a module imports, also through others.
fn reachable<'a, T>(from: &'a str, edges: &BTreeMap<(&'a str, &'a str), T>) -> BTreeSet<&'a str> {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(module) = open.pop() {
        let next = edges.keys().filter(|(a, _)| *a == module).map(|(_, b)| *b);
        open.extend(next.filter(|module| seen.insert(*module)));
    }
    seen
}

/// The arrows between crates that point against the order.
fn wrong_arrows(package: &Package, files: &BTreeMap<Module, (String, String)>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, code) in files.values() {
        for path in paths(code) {
            let imported = PACKAGES
                .iter()
                .find(|other| path.first().is_some_and(|first| first == other.name));
            if let Some(imported) = imported.filter(|imported| imported.rank >= package.rank) {
                found.push(format!("{name}: {} imports {}", package.name, imported.name));
            }
        }
    }
    found
}

#[test]
fn no_files_import_each_other() {
    let mut count = 0;
    for package in &PACKAGES {
        let imports = imports(&package.files());
        count += imports.len();
        let cycles = cycles(&imports);
        assert!(cycles.is_empty(), "{}: {cycles:#?}", package.name);
    }
    assert!(count > 500, "{count} imports inside of crates");
}

#[test]
fn crates_import_in_one_direction() {
    let mut imports = 0;
    for package in &PACKAGES {
        let files = package.files();
        let wrong = wrong_arrows(package, &files);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let all = files.values().flat_map(|(_, code)| paths(code));
        imports += all.filter(|path| path[0].starts_with("eddy_")).count();
    }
    assert!(imports > 100, "{imports} imports between crates");
}

/// A crate that nobody gave a rank would not be checked.
#[test]
fn every_member_of_the_workspace_has_a_rank() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    let members = manifest.split_once("members = [").expect("members").1;
    let members = members.split_once(']').expect("the end of the list").0;
    for member in members.split('"').skip(1).step_by(2) {
        let is_known = PACKAGES.iter().any(|package| package.folder == member);
        assert!(is_known, "{member} has no place in the order of crates");
    }
}

/// A made-up crate: the path of each file, and its text.
fn made_up(files: &[(&str, &str)]) -> BTreeMap<Module, (String, String)> {
    let file = |(path, text): &(&str, &str)| {
        let code = without_tests(&without_literals(text));
        (module_of(Path::new(path)), ((*path).to_owned(), code))
    };
    files.iter().map(file).collect()
}

fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
    let imports = imports(&made_up(files));
    cycles(&imports).into_keys().collect()
}

#[test]
fn cycles_are_found() {
    let use_lines = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::{b::{self, B}, c::C as D};"),
        ("b/mod.rs", "mod d;"),
        ("b/d.rs", "use super::super::c;"),
        ("c.rs", "pub(crate) use super::a::A;"),
    ];
    assert_eq!(cycles_of(&use_lines), ["{a, b, c}"]);
    let inline_paths = [
        ("m/a.rs", "fn f() { super::b::g() }"),
        ("m/b.rs", "fn g() -> crate::m::a::A { todo() }"),
    ];
    assert_eq!(
        cycles_of(&[&[("lib.rs", ""), ("m/mod.rs", "")][..], &inline_paths].concat()),
        ["m::{a, b}"]
    );
    let inline_module = [
        ("lib.rs", ""),
        ("a.rs", "mod inner { use super::super::b; }"),
        ("b.rs", "use crate::a;"),
    ];
    assert_eq!(cycles_of(&inline_module), ["{a, b}"]);
}

#[test]
fn parents_tests_and_comments_form_no_cycle() {
    let files = [
        ("lib.rs", "use crate::a::A; use self::b::B;"),
        (
            "a.rs",
            "use crate::b; // crate::c\nuse crate::Root; #[cfg(test)] mod t { use crate::c; }",
        ),
        ("b/mod.rs", "use self::d::D; const TEXT: &str = \"crate::a\";"),
        (
            "b/d.rs",
            "use super::E; fn f() -> impl Sized + use<'_> { crate::b::g() }",
        ),
        ("c.rs", "use crate::a;"),
    ];
    assert_eq!(cycles_of(&files), [""; 0]);
}

#[test]
fn wrong_arrows_are_found() {
    let files = made_up(&[(
        "lib.rs",
        "use eddy_core::time; fn f() { eddy_sim::world::play() }",
    )]);
    let [core, _, runtime, ..] = &PACKAGES;
    assert_eq!(
        wrong_arrows(runtime, &files),
        ["lib.rs: eddy_runtime imports eddy_sim"]
    );
    assert_eq!(wrong_arrows(core, &files).len(), 2);
}
