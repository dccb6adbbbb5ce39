//! Rule for imports within a crate: no file imports itself through other files, so that each can be
//! read after those that it imports. A type that two files need, such as an error or an id, has its
//! own file.
//!
//! Reads paths that begin with `crate::`, `super::` or `self::`, and follows re-exports. Files that
//! list a room (`mod.rs`, `lib.rs`, `main.rs`) import their parts by nature and do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::dependencies::{code, is_test, paths};
use crate::files::{Source, assert_no_faults, rust_sources};

/// The path of a module within its crate: `["hub", "stream"]`.
type Module = Vec<String>;

/// A file of a crate.
#[derive(Default)]
struct File {
    path: String,
    /// True for a file that lists a room.
    lists_room: bool,
    /// Paths of its `use` items, as written.
    uses: Vec<Module>,
    /// All paths that begin with `crate`, `super` or `self`, as written.
    named: Vec<Module>,
}

/// The folder of the crate that a file belongs to, with a slash at its end. A folder of `tests` is
/// a crate.
fn crate_folder(path: &str) -> Option<&str> {
    let end = match path.strip_prefix("tests/") {
        Some(rest) => "tests/".len() + rest.find('/')? + 1,
        None => path.find("/src/")? + "/src/".len(),
    };
    Some(&path[..end])
}

/// The module of a file, and whether the file lists a room. `inside` is relative to the crate.
fn module_of(inside: &str) -> (Module, bool) {
    let mut module: Module = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let is_root = module.len() == 1 && ["lib", "main"].contains(&module[0].as_str());
    let lists_room = is_root || module.last().is_some_and(|name| name == "mod");
    if lists_room {
        module.pop();
    }
    (module, lists_room)
}

/// Returns the files of one crate by module. `lib.rs` and `main.rs` are one module.
fn modules(folder: &str, sources: &[&Source]) -> BTreeMap<Module, File> {
    let mut files: BTreeMap<Module, File> = BTreeMap::new();
    for source in sources {
        let (module, lists_room) = module_of(&source.path[folder.len()..]);
        let code: Vec<_> = code(&source.text).collect();
        let split = |path: String| path.split("::").map(str::to_owned).collect::<Module>();
        let file = files.entry(module).or_default();
        file.path.clone_from(&source.path);
        file.lists_room = lists_room;
        file.uses.extend(paths(&code, "use ").into_iter().map(|(_, path)| split(path)));
        for root in ["crate", "super", "self"] {
            let found = paths(&code, &format!("{root}::")).into_iter();
            file.named.extend(found.map(|(_, path)| split(format!("{root}::{path}"))));
        }
    }
    files
}

/// Returns the module that defines what `module` names by `path`; `None` if it is not in this
/// crate.
fn resolve(files: &BTreeMap<Module, File>, module: &[String], path: &[String], depth: u32) -> Option<Module> {
    let (mut at, mut rest) = (module.to_vec(), path);
    match path.first()?.as_str() {
        "crate" => (at, rest) = (Module::new(), &path[1..]),
        "super" | "self" => {
            while let Some(root @ ("super" | "self")) = rest.first().map(String::as_str) {
                if root == "super" {
                    at.pop();
                }
                rest = &rest[1..];
            }
        }
        name if !files.contains_key(&child(module, name)) => return None,
        _ => {}
    }
    while let Some(name) = rest.first().filter(|name| files.contains_key(&child(&at, name))) {
        at = child(&at, name);
        rest = &rest[1..];
    }
    let used = rest.first().and_then(|name| files.get(&at)?.uses.iter().find(|used| used.last() == Some(name)));
    let through = used.filter(|_| depth > 0).and_then(|used| resolve(files, &at, used, depth - 1));
    Some(through.unwrap_or(at))
}

fn child(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// Returns the shortest path of imports from a module back to itself.
fn cycle_through<'a>(imports: &'a BTreeMap<Module, BTreeSet<Module>>, start: &'a Module) -> Option<Vec<&'a Module>> {
    let mut importer: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for imported in imports.get(module).into_iter().flatten() {
            if imported == start {
                let mut cycle = vec![module];
                while let Some(previous) = cycle.last().and_then(|module| importer.get(module)) {
                    cycle.push(*previous);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !importer.contains_key(imported) {
                importer.insert(imported, module);
                queue.push_back(imported);
            }
        }
    }
    None
}

/// Reports the import cycles of one crate, each once.
fn check_crate(folder: &str, sources: &[&Source], faults: &mut Vec<String>) {
    let files = modules(folder, sources);
    let counts = |module: &Module| files.get(module).is_some_and(|file| !file.lists_room);
    let imports: BTreeMap<Module, BTreeSet<Module>> = files
        .iter()
        .filter(|(module, _)| counts(module))
        .map(|(module, file)| {
            let found = file.named.iter().filter_map(|path| resolve(&files, module, path, MAX_REEXPORTS));
            (module.clone(), found.filter(|imported| imported != module && counts(imported)).collect())
        })
        .collect();
    for module in imports.keys() {
        if let Some(cycle) = cycle_through(&imports, module).filter(|cycle| cycle.iter().min() == Some(&module)) {
            let names: Vec<_> = cycle.iter().map(|module| files[*module].path.as_str()).collect();
            faults.push(format!("import cycle: {} -> {}", names.join(" -> "), names[0]));
        }
    }
}

fn check(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !is_test(&source.path) && !source.path.contains("/tests/")) {
        if let Some(folder) = crate_folder(&source.path) {
            crates.entry(folder).or_default().push(source);
        }
    }
    let mut faults = Vec::new();
    for (folder, sources) in crates {
        check_crate(folder, &sources, &mut faults);
    }
    faults
}

/// Re-exports of re-exports that are followed.
const MAX_REEXPORTS: u32 = 8;

#[test]
fn no_file_imports_itself_through_others() {
    assert_no_faults(&check(&rust_sources()));
}

fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
    let source = |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), text: (*text).to_owned() };
    check(&files.iter().map(source).collect::<Vec<_>>())
}

#[test]
fn import_cycle_is_found_also_through_a_re_export() {
    let direct = [
        ("daemon/src/a/mod.rs", "mod b;\nmod c;\n"),
        ("daemon/src/a/b.rs", "use super::c::C;\n"),
        ("daemon/src/a/c.rs", "fn f(_: crate::a::b::B) {}\n"),
    ];
    assert_eq!(cycles_of(&direct), ["import cycle: daemon/src/a/b.rs -> daemon/src/a/c.rs -> daemon/src/a/b.rs"]);
    let through_the_room = [
        ("media/wire/src/lib.rs", "mod a;\npub use a::{C, b::B};\n"),
        ("media/wire/src/a/mod.rs", "mod b;\nmod c;\npub use c::C;\n"),
        ("media/wire/src/a/b.rs", "use crate::{\n    C,\n};\n"),
        ("media/wire/src/a/c.rs", "use super::d::D;\n"),
        ("media/wire/src/a/d.rs", "use crate::B;\n"),
    ];
    let expected = "import cycle: media/wire/src/a/b.rs -> media/wire/src/a/c.rs -> media/wire/src/a/d.rs -> \
                    media/wire/src/a/b.rs";
    assert_eq!(cycles_of(&through_the_room), [expected]);
}

#[test]
fn imports_in_one_direction_in_tests_and_by_the_room_pass() {
    let files = [
        ("daemon/src/a/mod.rs", "mod b;\nmod c;\nuse crate::a::b::B;\n"),
        ("daemon/src/a/b.rs", "use super::c::C;\n// use super::d;\n"),
        ("daemon/src/a/c.rs", "use super::A;\n#[cfg(test)]\nmod tests {\nuse crate::a::b::B;\n}\n"),
        ("daemon/src/a/c_test.rs", "use super::b::B;\n"),
    ];
    assert_eq!(cycles_of(&files), [""; 0]);
}
