//! Finding a repository, and refusing what this store would misread.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use gix::{discover::upwards, sec::trust::Mapping};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
    store::git_process::{self, Git, GitRefs},
};

use super::{
    FilesOptions, FilesStore, Settings,
    backend::{self, Format},
    lockfile::LockRules,
    packed::PackedRefs,
    recent::Recent,
    shared::Shared,
    sweep::Spool,
};

/// The extensions that change nothing about where refs and objects are.
const HARMLESS: [&str; 7] =
    ["noop", "noop-v1", "preciousobjects", "partialclone", "worktreeconfig", "relativeworktrees", "objectformat"];

impl FilesStore {
    /// Opens the repository that `path` is in.
    ///
    /// # Errors
    /// [`ErrorCode::NotARepository`], [`ErrorCode::Untrusted`] if it belongs to somebody else and
    /// isn't a `safe.directory`, and [`ErrorCode::Unsupported`] for what would be misread.
    pub fn open(path: impl AsRef<Path>, options: &FilesOptions) -> Result<FilesStore> {
        let path = path.as_ref();
        let started = options.clock.boot_ms();
        let repo = loop {
            match discover(path, options.environment) {
                // While its refs are migrated, a repository may look like none.
                Err(error)
                    if error.code() == ErrorCode::NotARepository
                        && backend::is_migrating(path, options.clock.now().wall)
                        && options.clock.boot_ms().saturating_sub(started) < clock::millis(options.lock_timeout) =>
                {
                    options.clock.pause(std::time::Duration::from_millis(5));
                }
                found => break found?.to_thread_local(),
            }
        };
        let common_dir = absolute(repo.common_dir())?;
        check_trust(&repo)?;
        let config = repo.config_snapshot();
        let boolean = |key: &str| config.boolean(key).unwrap_or(false);
        check_format(&config, &common_dir, &*options.clock)?;
        let hash = repo.object_hash();
        let settings = settings(&config)?;
        let durable = options.durable || settings.durable.unwrap_or(false);
        let shared = config.string("core.sharedRepository").map(|value| value.to_string()).unwrap_or_default();
        let rules = LockRules {
            common_dir: common_dir.as_path().into(),
            timeout: options.lock_timeout,
            stale_age: settings.stale_lock_age_ms.map_or(options.stale_lock_age, std::time::Duration::from_millis),
            shared: Shared::from_config(&shared),
            durable,
            boot_started: clock::boot_started_at(&options.clock.now()),
            clock: options.clock.clone(),
            faults: options.faults,
        };
        // Git heeds a symbolic link here and works on what it points at; so does this store.
        let packed_path = common_dir.join("packed-refs");
        let packed_path = packed_path.canonicalize().unwrap_or(packed_path);
        let objects_dir = repo.objects.store_ref().path().to_owned();
        let loose = gix::odb::loose::Store::at_opts(
            objects_dir.clone(),
            hash,
            gix::odb::loose::Options { alloc_limit_bytes: Some(8 << 20), compression: repo.loose_compression() },
        );
        let precious = boolean("extensions.preciousObjects");
        let packs = super::objects::Packs::open(&objects_dir, hash)
            .map_err(|error| Error::io(format_args!("can't open {}", objects_dir.display()), error))?;
        let git = Git::new(&absolute(repo.git_dir())?, repo.workdir().map(absolute).transpose()?.as_deref());
        Ok(FilesStore {
            git_refs: GitRefs::new(git.clone(), &common_dir.join("reftable"), hash.len_in_bytes(), durable),
            git,
            seen: backend::Seen::default(),
            hash,
            loose,
            packs: Mutex::new(packs),
            packed: PackedRefs::new(packed_path),
            rules,
            sweep: Spool::new(options.sweep_grace, precious),
            recent: Recent::default(),
            settings,
            generation: crate::fork::generation(),
            common_dir,
        })
    }
}

/// Refuses a repository of another user, whose configuration may name programs.
pub(in crate::store) fn check_trust(repo: &gix::Repository) -> Result<()> {
    if repo.git_dir_trust() == gix::sec::Trust::Full {
        return Ok(());
    }
    let common_dir = absolute(repo.common_dir())?;
    Err(Error::new(
        ErrorCode::Untrusted,
        format!(
            "the repository {} belongs to another user; if you trust it, run \
             `git config --global --add safe.directory {}`",
            common_dir.display(),
            repo.workdir().unwrap_or(&common_dir).display()
        ),
    ))
}

pub(in crate::store) fn discover(path: &Path, environment: bool) -> Result<gix::ThreadSafeRepository> {
    let open = gix::open::Options::default();
    let trust = Mapping { full: open.clone(), reduced: open };
    let upwards = upwards::Options::default();
    let found = if environment {
        gix::ThreadSafeRepository::discover_with_environment_overrides_opts(path, upwards, trust)
    } else {
        gix::ThreadSafeRepository::discover_opts(path, upwards, trust)
    };
    found.map_err(|error| {
        let why = error.to_string();
        // Nothing there, as opposed to something there that can't be opened.
        let nothing = !path.exists() || gix::discover::upwards(path).is_err();
        if nothing {
            let message = format!(
                "there is no Git repository at {} or above it; run this inside one, name one with -C, or make one with `git init`",
                path.display()
            );
            Error::new(ErrorCode::NotARepository, message)
        } else {
            let message = format!("the repository at {} can't be opened: {why}", path.display());
            Error::new(ErrorCode::Unsupported, message)
        }
        .with_source(why)
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| Error::io(format_args!("can't find {}", path.display()), error))
}

/// Refuses the formats and extensions that this store would misread, as Git itself would refuse
/// what it doesn't know (gitrepository-layout, repository-version).
fn check_format(config: &gix::config::Snapshot<'_>, common_dir: &Path, clock: &dyn Clock) -> Result<()> {
    let refuse = |what: String, advice: &str| {
        let message =
            format!("the repository {} has {what}, which this gitlock would misread; {advice}", common_dir.display());
        Err(Error::new(ErrorCode::Unsupported, message))
    };
    let version = config.integer("core.repositoryFormatVersion").unwrap_or(0);
    if !(0..=1).contains(&version) {
        return refuse(format!("the format version {version}"), "use a newer gitlock");
    }
    let on_disk = backend::once_settled(common_dir, clock)
        .map_err(|error| Error::io(format_args!("can't read {}", common_dir.display()), error))?;
    if on_disk == Format::Reftable {
        git_process::find()?;
    } else if common_dir.join("reftable").is_dir() {
        return refuse(
            "a folder `reftable` that its configuration doesn't name".to_owned(),
            "set `extensions.refStorage` to reftable if its refs are there, or remove the folder",
        );
    }
    let Some(sections) = config.plumbing().sections_by_name("extensions") else { return Ok(()) };
    for section in sections {
        if section.header().subsection_name().is_some() {
            continue;
        }
        for name in section.body().value_names() {
            let key = name.to_string().to_ascii_lowercase();
            if key == "refstorage" {
                let value = section.body().value("refStorage").map(|value| value.to_string()).unwrap_or_default();
                let known = value.eq_ignore_ascii_case("files")
                    || version == 1 && value.eq_ignore_ascii_case("reftable") && on_disk == Format::Reftable;
                if !known {
                    return refuse(
                        format!("its refs in the format {value:?}, as its configuration says"),
                        "use a repository with refs in the format \"files\" or \"reftable\"",
                    );
                }
            } else if version == 1 && !HARMLESS.contains(&&*key) {
                return refuse(format!("the extension {key:?}"), "use a newer gitlock, or a repository without it");
            }
        }
    }
    Ok(())
}

pub(in crate::store) fn settings(config: &gix::config::Snapshot<'_>) -> Result<Settings> {
    let number = |key: &str| -> Result<Option<u64>> {
        let refuse = |why: &str| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("the setting {key} {why}; set it to a whole number, 0 or more"),
            )
        };
        match config.try_integer(key) {
            Ok(None) => Ok(None),
            Ok(Some(value)) => u64::try_from(value).map(Some).map_err(|_| refuse("is negative")),
            Err(error) => Err(refuse("isn't a number").with_source(error.to_string())),
        }
    };
    let keep = number("gitlock.keep")?.map(|keep| u32::try_from(keep).unwrap_or(u32::MAX));
    Ok(Settings {
        prefix: config.string("gitlock.prefix").map(|prefix| prefix.to_string()),
        keep,
        durable: config.boolean("gitlock.durable"),
        stale_lock_age_ms: number("gitlock.staleLockAge")?,
        max_clock_skew_ms: number("gitlock.maxClockSkew")?,
        remote: config.string("gitlock.remote").map(|remote| remote.to_string()).filter(|remote| !remote.is_empty()),
    })
}
