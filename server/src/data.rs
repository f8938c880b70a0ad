//! The data folder: what lies where in it, and how it is opened, copied and put back. The store's own folder, format and
//! lock are the store's affair.
//!
//! ```text
//! store/        what is kept: journal and tree, FORMAT, LOCK
//! search/       the search index; built anew from the store when it is missing
//! signing.key   signs access tokens; made at the first start
//! node.lock     of a node of a cluster: held while it runs
//! admin.token   what the admin listener wants to hear before it changes anything; made at each start
//! ```
//! A backup holds `store/` and `signing.key`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use godwit_accounts::Tokens;
use godwit_store::Store;
use godwit_store::embedded::{self, Embedded};

use crate::StartError;

const LOCK_FILE: &str = "node.lock";
const KEY_FILE: &str = "signing.key";
const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Names in a data folder.
#[derive(Clone, Debug)]
pub struct DataFolder(PathBuf);

impl DataFolder {
    /// The folder at this path; touches nothing.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Folder of the search index.
    pub fn search(&self) -> PathBuf {
        self.0.join("search")
    }

    fn key(&self) -> PathBuf {
        self.0.join(KEY_FILE)
    }

    /// Opens the store, making folder and store at the first start.
    ///
    /// # Errors
    /// Another process has it, it is damaged or of a newer format, or the disk fails; or it is the folder of a node of a
    /// cluster, which keeps no store in it.
    pub fn open_store(&self, cache_mb: u32) -> Result<Arc<dyn Store>, StartError> {
        if self.0.join(LOCK_FILE).exists() && !self.store().exists() {
            return Err(StartError::Folder(format!(
                "{} is the folder of a node of a cluster (store = \"cql\"): no store of its own is made in it",
                self.0.display()
            )));
        }
        make_private(&self.0)?;
        let options = embedded::Options {
            cache_bytes: u64::from(cache_mb) << 20,
            ..embedded::Options::default()
        };
        open_engine(&self.store(), options)
    }

    /// Makes the folder, and takes it for this process alone until the lock is dropped: for nodes that keep no store in it.
    ///
    /// # Errors
    /// Another process has it, or the disk fails.
    pub fn lock(&self) -> Result<File, StartError> {
        make_private(&self.0)?;
        let path = self.0.join(LOCK_FILE);
        let file = File::create(&path).map_err(|error| at(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(StartError::Folder(format!(
                "{} is in use by another process",
                self.0.display()
            ))),
            Err(fs::TryLockError::Error(error)) => Err(at(&path, error)),
        }
    }

    /// Reads the signing key, or makes it.
    ///
    /// # Errors
    /// The file cannot be read or written, or is damaged.
    pub fn open_tokens(&self) -> Result<Tokens, StartError> {
        Ok(Tokens::open(&self.key())?)
    }

    /// Writes a fresh admin token. Call it only with the store open: the token is the running process's.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new_admin_token(&self) -> Result<String, StartError> {
        let token = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let (path, new) = (self.0.join(ADMIN_TOKEN_FILE), self.0.join("admin.token.new"));
        write_private(&new, token.as_bytes())
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| at(&path, error))?;
        Ok(token)
    }

    /// The admin token of the process that serves this folder, or served it last.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn admin_token(&self) -> Result<String, StartError> {
        let path = self.0.join(ADMIN_TOKEN_FILE);
        let text = fs::read_to_string(&path).map_err(|error| at(&path, error))?;
        Ok(text.trim().to_owned())
    }

    /// Writes a backup of what `store` (this folder's) holds now into the empty or absent folder `to`.
    ///
    /// # Errors
    /// `to` is in use or inside this folder, or the disk fails.
    pub fn backup(&self, store: &dyn Store, to: &Path) -> Result<(), StartError> {
        let made = || -> io::Result<(PathBuf, PathBuf)> {
            make_dirs(to)?;
            Ok((to.canonicalize()?, self.0.canonicalize()?))
        };
        let (target, own) = made().map_err(|error| at(to, error))?;
        if target.starts_with(&own) {
            return Err(StartError::Folder(format!(
                "{} lies in the data folder itself; give another one",
                to.display()
            )));
        }
        check_empty(&target)?;
        // The key first: a backup counts as complete once the store's part is.
        copy_private(&self.key(), &target.join(KEY_FILE))?;
        store.backup(&target.join("store"))?;
        sync(&target).map_err(|error| at(to, error))
    }

    /// Makes this folder (absent or empty) from a backup. The search index is built at the next start.
    ///
    /// # Errors
    /// `from` is no complete backup, this folder is in use, or the disk fails.
    pub fn restore(&self, from: &Path) -> Result<(), StartError> {
        if !from.join("store").join("FORMAT").is_file() {
            return Err(StartError::Folder(format!(
                "{} is not a complete backup",
                from.display()
            )));
        }
        if self.0.exists() {
            check_empty(&self.0)?;
        }
        make_private(&self.0)?;
        copy_private(&from.join(KEY_FILE), &self.key())?;
        embedded::restore(&from.join("store"), &self.store())?;
        // The folder's own name, too, must be there after a power loss.
        let parent = self.0.canonicalize().ok();
        let parent = parent.as_deref().and_then(Path::parent);
        sync(&self.0)
            .and_then(|()| parent.map_or(Ok(()), sync))
            .map_err(|error| at(&self.0, error))
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn open_engine(folder: &Path, options: embedded::Options) -> Result<Arc<dyn Store>, StartError> {
    Ok(Arc::new(Embedded::open(folder, options)?))
}

#[cfg(feature = "planted-bugs")]
fn open_engine(folder: &Path, mut options: embedded::Options) -> Result<Arc<dyn Store>, StartError> {
    let bug = crate::planted::Bug::named()?;
    if let Some(faults) = bug.as_ref().and_then(crate::planted::Bug::faults) {
        options.faults = faults;
    }
    let engine: Arc<dyn Store> = Arc::new(Embedded::open(folder, options)?);
    Ok(match bug {
        Some(bug) => bug.before(engine),
        None => engine,
    })
}

fn at(path: &Path, error: io::Error) -> StartError {
    StartError::Folder(format!("{}: {error}", path.display()))
}

/// Makes the folder for its owner alone: it holds the signing key and everybody's messages.
fn make_private(path: &Path) -> Result<(), StartError> {
    make_dirs(path).map_err(|error| at(path, error))
}

fn make_dirs(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn check_empty(path: &Path) -> Result<(), StartError> {
    let used = fs::read_dir(path)
        .map_err(|error| at(path, error))?
        .next()
        .is_some();
    match used {
        true => Err(StartError::Folder(format!(
            "{} is not empty; give an empty or new folder",
            path.display()
        ))),
        false => Ok(()),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A file left behind by an earlier try would keep its mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn copy_private(from: &Path, to: &Path) -> Result<(), StartError> {
    let bytes = fs::read(from).map_err(|error| at(from, error))?;
    write_private(to, &bytes).map_err(|error| at(to, error))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn opened() -> (tempfile::TempDir, DataFolder, Arc<dyn Store>) {
        let temp = tempfile::tempdir().unwrap();
        let folder = DataFolder::at(&temp.path().join("data"));
        let store = folder.open_store(8).unwrap();
        folder.open_tokens().unwrap();
        (temp, folder, store)
    }

    #[test]
    fn no_store_is_made_in_the_folder_of_a_node_of_a_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::at(folder.path());
        drop(data.lock().unwrap());
        let Err(StartError::Folder(told)) = data.open_store(16) else {
            panic!("a store was made");
        };
        assert!(told.contains("node of a cluster"), "{told}");
        assert!(!folder.path().join("store").exists());
    }

    #[test]
    fn a_backup_becomes_a_data_folder_with_the_same_key() {
        let (temp, folder, store) = opened();
        folder
            .backup(store.as_ref(), &temp.path().join("backup"))
            .unwrap();
        let restored = DataFolder::at(&temp.path().join("restored"));
        restored.restore(&temp.path().join("backup")).unwrap();
        assert_eq!(fs::read(restored.key()).unwrap(), fs::read(folder.key()).unwrap());
        let mode = fs::metadata(restored.key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(restored.open_store(8).unwrap().start_view() > store.start_view());
    }

    #[test]
    fn backup_and_restore_never_write_over_anything() {
        let (temp, folder, store) = opened();
        let used = temp.path().join("used");
        fs::create_dir(&used).unwrap();
        fs::write(used.join("x"), "x").unwrap();
        assert!(folder.backup(store.as_ref(), &used).is_err());
        assert!(
            folder
                .backup(store.as_ref(), &folder.path().join("inside"))
                .is_err()
        );
        folder
            .backup(store.as_ref(), &temp.path().join("backup"))
            .unwrap();
        assert!(
            DataFolder::at(&used)
                .restore(&temp.path().join("backup"))
                .is_err()
        );
        assert!(DataFolder::at(&temp.path().join("new")).restore(&used).is_err());
        assert!(!temp.path().join("new").exists());
    }

    #[test]
    fn a_second_store_on_the_same_folder_is_refused_in_one_line() {
        let (_temp, folder, _store) = opened();
        let error = folder.open_store(8).err().unwrap().to_string();
        assert!(
            error.contains("in use by another process") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn a_folder_without_a_store_is_one_processes_too() {
        let temp = tempfile::tempdir().unwrap();
        let folder = DataFolder::at(&temp.path().join("data"));
        let held = folder.lock().unwrap();
        let error = folder.lock().unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(held);
        assert!(folder.lock().is_ok());
    }

    #[test]
    fn the_admin_token_is_the_last_one_made_and_for_its_owner_alone() {
        let (_temp, folder, _store) = opened();
        let (first, second) = (
            folder.new_admin_token().unwrap(),
            folder.new_admin_token().unwrap(),
        );
        assert_ne!(first, second);
        assert_eq!(folder.admin_token().unwrap(), second);
        let mode = fs::metadata(folder.path().join(ADMIN_TOKEN_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
