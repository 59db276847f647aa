//! `core.sharedRepository`: who but the owner may use what is made in the repository.

use std::{
    fs::{self, Permissions},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
};

use rustix::fs::Mode;

/// What the setting does to permissions, as Git's calc_shared_perm() does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    /// The bits that it gives.
    bits: u32,
    /// Whether they are all that is given, as for `0640`; else they are added to what the umask leaves.
    exact: bool,
}

impl Shared {
    /// The setting with this value (git-config).
    pub(super) fn from_config(value: &str) -> Shared {
        let add = |bits| Shared { bits, exact: false };
        match value.to_ascii_lowercase().as_str() {
            "" | "umask" | "false" | "no" | "off" | "0" => add(0),
            "group" | "true" | "yes" | "on" | "1" => add(0o660),
            "all" | "world" | "everybody" | "2" => add(0o664),
            octal => match u32::from_str_radix(octal, 8) {
                // Git refuses to work where the owner himself is kept out.
                Ok(mode) if mode & 0o600 == 0o600 => Shared { bits: mode & 0o666, exact: true },
                _ => add(0),
            },
        }
    }

    /// Whether the umask alone decides.
    pub(super) fn is_off(self) -> bool {
        self == Shared::default()
    }

    fn apply(self, mode: u32) -> u32 {
        let writable = if mode & 0o200 == 0 { !0o222 } else { !0 };
        let mut bits = self.bits & writable;
        if mode & 0o100 != 0 {
            // Whoever reads may enter.
            bits |= (bits & 0o444) >> 2;
        }
        if self.exact { mode & !0o777 | bits } else { mode | bits }
    }

    /// Sets the permissions of a file that was made.
    pub(super) fn file(self, file: impl AsFd) -> rustix::io::Result<()> {
        if self.is_off() {
            return Ok(());
        }
        let mode = rustix::fs::fstat(&file)?.st_mode & 0o7777;
        let wanted = self.apply(mode);
        if wanted == mode { Ok(()) } else { rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted)) }
    }

    /// Sets the permissions of a folder that was made, or of a read-only file. Another user's can't
    /// be changed, and needn't be.
    pub(super) fn path(self, path: &Path) {
        if self.is_off() {
            return;
        }
        let Ok(meta) = fs::metadata(path) else { return };
        let mode = meta.permissions().mode() & 0o7777;
        let mut wanted = self.apply(mode);
        if meta.is_dir() && wanted & 0o060 != 0 {
            // What is made inside stays with the group.
            wanted |= 0o2000;
        }
        if wanted != mode {
            let _ = fs::set_permissions(path, Permissions::from_mode(wanted));
        }
    }

    /// Sets the permissions of folders that were made below `refs`.
    pub(super) fn folders(self, folder: &Path) {
        folder.ancestors().take_while(|folder| !folder.ends_with("refs")).for_each(|folder| self.path(folder));
    }
}
