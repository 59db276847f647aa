//! Making a repository for locks alone.

use std::{fs, io::Write, path::Path};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
};

/// What differs from a plain bare repository, and why.
const SETTINGS: &str = "\
[receive]
\t# Pushes stay quick: objects are packed at night, by the line that `git lock init-server` prints.
\tautogc = false
\t# Several refs change as one.
\tadvertiseAtomic = true
\t# Small pushes become loose objects, which no push has to wait for.
\tunpackLimit = 1000
\t# A record has at most 1 MiB; nothing else belongs here.
\tmaxInputSize = 16m
[gc]
\tauto = 0
[core]
\t# A granted lock survives a power failure.
\tfsync = committed,loose-object,reference
[uploadpack]
\t# The journal can be read from any of its commits on.
\tallowAnySHA1InWant = true
[gitlock]
\tdurable = true
";

/// Makes a bare repository for locks alone, with the settings that fit.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] if there is something already, and what can go wrong when it is made.
pub fn init_server(folder: &Path) -> Result<()> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} isn't empty; name a folder that isn't there yet", folder.display());
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    let made = gix::init_bare(folder);
    made.map_err(|error| Error::new(ErrorCode::Io, format!("{} can't be made: {error}", folder.display())))?;
    let config = folder.join("config");
    let written =
        fs::File::options().append(true).open(&config).and_then(|mut file| file.write_all(SETTINGS.as_bytes()));
    written.map_err(|error| Error::io(format_args!("can't write {}", config.display()), error))
}
