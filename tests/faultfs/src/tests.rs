//! The layer without a mount: what of names and contents is there after a power loss, by hand-written cases and by
//! random calls against a naive copy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use tempfile::TempDir;

use crate::layer::{GRAVEYARD, Layer};
use crate::node::ROOT;
use crate::rng::Rng;
use crate::{Mode, Names};

/// Path → content; folders have none.
type Snapshot = BTreeMap<String, Option<Vec<u8>>>;

fn layer(names: Names) -> (TempDir, Layer) {
    let folder = TempDir::new().unwrap();
    let layer = Layer::open(folder.path(), 1, names).unwrap();
    (folder, layer)
}

fn snapshot(folder: &Path) -> Snapshot {
    fn walk(folder: &Path, prefix: &str, into: &mut Snapshot) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name == GRAVEYARD {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), into);
                into.insert(path, None);
            } else {
                into.insert(path, Some(std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut into = Snapshot::new();
    walk(folder, "", &mut into);
    into
}

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

impl Layer {
    fn put(&self, dir: u64, file: &str, content: &[u8]) -> u64 {
        let node = self.create(dir, name(file), 0o644, false).unwrap();
        self.truncate(node.id, 0).unwrap();
        self.write(node.id, 0, content, false).unwrap();
        node.id
    }

    fn put_synced(&self, dir: u64, file: &str, content: &[u8]) -> u64 {
        let id = self.put(dir, file, content);
        self.sync(id).unwrap();
        self.sync_dir(dir).unwrap();
        id
    }

    fn folder(&self, dir: u64, folder: &str) -> u64 {
        self.mkdir(dir, name(folder), 0o755).unwrap().id
    }

    fn drop_unsynced(&self) {
        self.power_loss(Mode::Drop, None).unwrap();
    }
}

fn files(folder: &TempDir) -> Vec<(String, String)> {
    snapshot(folder.path())
        .into_iter()
        .filter_map(|(path, content)| Some((path, String::from_utf8(content?).unwrap())))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn a_replaced_file_comes_back_unless_its_folder_was_synced() {
    for synced in [false, true] {
        let (folder, layer) = layer(Names::Strict);
        layer.put_synced(ROOT, "manifest", b"old");
        let id = layer.put(ROOT, "tmp", b"new");
        layer.sync(id).unwrap();
        layer
            .rename((ROOT, name("tmp")), (ROOT, name("manifest")), false)
            .unwrap();
        assert_eq!(files(&folder), pairs(&[("manifest", "new")]));
        if synced {
            layer.sync_dir(ROOT).unwrap();
        }
        layer.drop_unsynced();
        assert_eq!(
            files(&folder),
            pairs(&[("manifest", if synced { "new" } else { "old" })])
        );
    }
}

#[test]
fn a_file_whose_name_was_synced_but_not_its_content_is_found_empty() {
    let (folder, layer) = layer(Names::Strict);
    layer.put(ROOT, "f", b"content");
    layer.sync_dir(ROOT).unwrap();
    layer.drop_unsynced();
    assert_eq!(files(&folder), pairs(&[("f", "")]));
}

#[test]
fn a_removed_file_comes_back_as_it_was_synced_though_it_was_cut_before_removal() {
    let (folder, layer) = layer(Names::Strict);
    let id = layer.put_synced(ROOT, "f", b"content");
    layer.truncate(id, 2).unwrap();
    layer.remove(ROOT, name("f"), false).unwrap();
    layer.forget(id, 1);
    assert_eq!(files(&folder), pairs(&[]));
    layer.drop_unsynced();
    assert_eq!(files(&folder), pairs(&[("f", "content")]));
    layer.remove(ROOT, name("f"), false).unwrap();
    layer.sync_dir(ROOT).unwrap();
    layer.drop_unsynced();
    assert_eq!(files(&folder), pairs(&[]));
}

#[test]
fn a_folder_not_synced_into_its_parent_is_lost_with_all_in_it() {
    let (folder, layer) = layer(Names::Strict);
    let inner = layer.folder(ROOT, "d");
    layer.put_synced(inner, "f", b"content");
    layer.drop_unsynced();
    assert_eq!(snapshot(folder.path()), Snapshot::new());
    let inner = layer.folder(ROOT, "d");
    layer.put_synced(inner, "f", b"content");
    layer.sync_dir(ROOT).unwrap();
    layer.drop_unsynced();
    assert_eq!(files(&folder), pairs(&[("d/f", "content")]));
}

#[test]
fn a_file_moved_between_folders_is_at_one_place_whichever_folder_was_synced() {
    for sync_new in [false, true] {
        let (folder, layer) = layer(Names::Strict);
        layer.put_synced(ROOT, "f", b"content");
        let inner = layer.folder(ROOT, "d");
        layer
            .rename((ROOT, name("f")), (inner, name("g")), false)
            .unwrap();
        layer.sync_dir(if sync_new { inner } else { ROOT }).unwrap();
        layer.drop_unsynced();
        assert_eq!(
            files(&folder),
            pairs(&[("d/g", "content")]),
            "sync_new {sync_new}"
        );
    }
}

#[test]
fn a_removed_folder_comes_back_with_what_was_removed_from_it() {
    let (folder, layer) = layer(Names::Strict);
    let inner = layer.folder(ROOT, "d");
    layer.put_synced(inner, "f", b"content");
    layer.sync_dir(ROOT).unwrap();
    assert!(layer.remove(ROOT, name("d"), true).is_err(), "not empty");
    layer.remove(inner, name("f"), false).unwrap();
    layer.remove(ROOT, name("d"), true).unwrap();
    layer.drop_unsynced();
    assert_eq!(files(&folder), pairs(&[("d/f", "content")]));
}

#[test]
fn a_second_name_not_synced_is_lost_and_the_first_stays() {
    let (folder, layer) = layer(Names::Strict);
    let id = layer.put_synced(ROOT, "one", b"content");
    layer.link(id, ROOT, name("two")).unwrap();
    layer.remove(ROOT, name("one"), false).unwrap();
    layer.drop_unsynced();
    assert_eq!(files(&folder), pairs(&[("one", "content")]));
}

#[test]
fn numbers_from_before_a_power_loss_are_stale() {
    let (_folder, layer) = layer(Names::Strict);
    let id = layer.put_synced(ROOT, "f", b"content");
    layer.drop_unsynced();
    let error = layer.write(id, 0, b"late", false).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::STALE.raw_os_error())
    );
    assert_ne!(layer.lookup(ROOT, name("f")).unwrap().id, id);
}

#[test]
fn the_graveyard_is_hidden_and_cleared() {
    let (folder, layer) = layer(Names::Strict);
    assert!(layer.lookup(ROOT, name(GRAVEYARD)).is_err());
    layer.put_synced(ROOT, "f", b"content");
    layer.remove(ROOT, name("f"), false).unwrap();
    layer.close().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// One random change of names; false if it was refused.
fn change_names(layer: &Layer, rng: &mut Rng) -> bool {
    let folders: Vec<u64> = std::iter::once(ROOT)
        .chain(
            (0..3)
                .filter_map(|n| layer.lookup(ROOT, name(&format!("d{n}"))).ok())
                .map(|node| node.id),
        )
        .collect();
    let mut folder = || folders[rng.below(folders.len() as u64) as usize];
    let (a, b) = (folder(), folder());
    let (x, y) = (format!("f{}", rng.below(4)), format!("f{}", rng.below(4)));
    let d = format!("d{}", rng.below(3));
    match rng.below(7) {
        0 | 1 => {
            layer.put(a, &x, format!("{} {x}", rng.next_u64()).as_bytes());
            true
        }
        2 => layer.remove(a, name(&x), false).is_ok(),
        3 | 4 => layer.rename((a, name(&x)), (b, name(&y)), false).is_ok(),
        5 => layer
            .lookup(a, name(&x))
            .and_then(|node| layer.link(node.id, b, name(&y)))
            .map(|_| ())
            .is_ok(),
        _ => layer.mkdir(ROOT, name(&d), 0o755).is_ok() || layer.remove(ROOT, name(&d), true).is_ok(),
    }
}

#[test]
fn random_changes_of_names_are_lost_back_to_the_last_sync_of_everything() {
    for seed in 0..60 {
        let (folder, layer) = layer(Names::Journal);
        let mut rng = Rng::new(seed);
        let mut synced = snapshot(folder.path());
        let mut done = 0;
        for _ in 0..150 {
            done += u32::from(change_names(&layer, &mut rng));
            if rng.below(40) == 0 {
                layer.sync_all().unwrap();
                synced = snapshot(folder.path());
            }
            if rng.below(40) == 0 {
                layer.drop_unsynced();
                assert_eq!(snapshot(folder.path()), synced, "seed {seed}");
            }
        }
        layer.drop_unsynced();
        assert_eq!(snapshot(folder.path()), synced, "seed {seed}");
        assert!(done > 60, "seed {seed} did only {done} changes");
    }
}

#[test]
fn random_changes_and_folder_syncs_can_always_be_taken_back() {
    for seed in 0..60 {
        let (folder, layer) = layer(Names::Strict);
        let mut rng = Rng::new(1000 + seed);
        for round in 0..4 {
            for _ in 0..60 {
                change_names(&layer, &mut rng);
                if rng.below(6) == 0 {
                    let inner = layer.lookup(ROOT, name("d1")).map_or(ROOT, |node| node.id);
                    layer.sync_dir(if rng.coin() { ROOT } else { inner }).unwrap();
                }
            }
            let mode = if rng.coin() { Mode::Drop } else { Mode::Torn };
            let loss = layer.power_loss(mode, Some(round));
            assert!(loss.is_ok(), "seed {seed}: {loss:?}");
            let graves = std::fs::read_dir(folder.path().join(GRAVEYARD)).unwrap().count();
            assert_eq!(graves, 0, "seed {seed}");
        }
    }
}

/// One random change of content, done to the layer and to the naive copy.
fn change_content(layer: &Layer, id: u64, live: &mut Vec<u8>, rng: &mut Rng) {
    let offset = rng.below(20_000) as usize;
    let len = 1 + rng.below(9_000) as usize;
    match rng.below(6) {
        0..3 => {
            let data: Vec<u8> = (0..len).map(|_| 1 + rng.below(255) as u8).collect();
            layer.write(id, offset as u64, &data, false).unwrap();
            live.resize(live.len().max(offset + len), 0);
            live[offset..offset + len].copy_from_slice(&data);
        }
        3 => {
            layer.truncate(id, offset as u64).unwrap();
            live.resize(offset, 0);
        }
        4 => {
            layer.fallocate(id, offset as u64, len as u64, 0).unwrap();
            live.resize(live.len().max(offset + len), 0);
        }
        _ => {
            let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            layer
                .fallocate(id, offset as u64, len as u64, punch.bits() as i32)
                .unwrap();
            let end = live.len().min(offset + len);
            live[offset.min(end)..end].fill(0);
        }
    }
}

#[test]
fn random_content_is_lost_back_to_the_last_sync_and_torn_content_is_old_or_new() {
    for seed in 0..200 {
        let (folder, layer) = layer(Names::Strict);
        let mut rng = Rng::new(seed);
        let mut id = layer.put_synced(ROOT, "f", b"");
        let (mut live, mut synced) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            change_content(&layer, id, &mut live, &mut rng);
            if rng.below(5) == 0 {
                layer.sync(id).unwrap();
                synced.clone_from(&live);
            }
            if rng.below(8) > 0 {
                continue;
            }
            let mode = [Mode::Drop, Mode::Torn, Mode::Partial][rng.below(3) as usize];
            layer.power_loss(mode, Some(rng.next_u64())).unwrap();
            let there = std::fs::read(folder.path().join("f")).unwrap();
            let at = |bytes: &[u8], index: usize| bytes.get(index).copied().unwrap_or(0);
            let odd = (0..there.len()).find(|&i| there[i] != at(&synced, i) && there[i] != at(&live, i));
            assert_eq!(odd, None, "seed {seed}, {mode:?}: neither old nor new");
            // A cut last write may leave less, if the file was shortened before it.
            let shortest = if mode == Mode::Partial {
                0
            } else {
                live.len().min(synced.len())
            };
            assert!(
                (shortest..=live.len().max(synced.len())).contains(&there.len()),
                "seed {seed}, {mode:?}"
            );
            if mode == Mode::Drop {
                assert!(there == synced, "seed {seed}");
            }
            (live, synced) = (there.clone(), there);
            id = layer.lookup(ROOT, name("f")).unwrap().id;
        }
    }
}
