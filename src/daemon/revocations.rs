//! The file of those whose tokens were revoked: a line for each revocation, which is on the disk before the operator is
//! answered.
//!
//! A revocation is added at the end. At each start the file is written anew with what still counts, as well as when it
//! has become much longer than that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{info, warn};
use slotcast::access::revoked::{Revocation, Revoked};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::Ages;

use super::Failure;
use super::settings::Settings;

/// The longest line, in bytes: more than a revocation of the longest user.
const LONGEST_LINE: u64 = 8192;

/// Bytes that the file may have beside twice what it needs.
const SPARE: u64 = 1 << 20;

/// Where revocations are kept.
#[derive(Debug, Clone)]
pub struct Revocations {
    path: PathBuf,
}

/// What a file says.
#[derive(Debug, Default)]
struct Found {
    revoked: Revoked,
    /// Its last line is not whole: whoever asked for it was never answered.
    is_torn: bool,
}

/// Checks that the file can be read, if there is one.
///
/// # Errors
/// `Failure::Usage`, one line.
pub fn check(settings: &Settings) -> Result<(), Failure> {
    let Some(name) = &settings.values.revocations_file else { return Ok(()) };
    read(Path::new(name), &settings.ages(), now()).map(|_| ()).map_err(|why| refused(name, &why))
}

impl Revocations {
    /// Reads the file, if one is named, and writes it anew with what still counts. One that does not exist is empty.
    ///
    /// # Errors
    /// `Failure::Usage`, one line, if it is damaged, or cannot be read or written.
    pub fn open(settings: &Settings) -> Result<Option<(Revocations, Revoked)>, Failure> {
        let Some(name) = &settings.values.revocations_file else { return Ok(None) };
        Revocations::open_at(name, &settings.ages(), now()).map(Some).map_err(|why| refused(name, &why))
    }

    fn open_at(name: &str, ages: &Ages, now: UnixTime) -> Result<(Revocations, Revoked), String> {
        // What a link leads to is replaced, and not the link.
        let path = fs::canonicalize(name).unwrap_or_else(|_| PathBuf::from(name));
        let Found { revoked, is_torn } = read(&path, ages, now)?;
        if is_torn {
            warn!("{name:?}: the last line is not whole and was left out; the one who asked for it got no answer");
        }
        let file = Revocations { path };
        file.write(&revoked).map_err(|error| format!("it cannot be written: {error}"))?;
        info!("{name:?}: users whose tokens are revoked: {}", revoked.len());
        Ok((file, revoked))
    }

    /// Adds a revocation, which is on the disk when this returns. `all` is what the file says then.
    ///
    /// # Errors
    /// Those of the system. The file is as it was, as far as the system allows.
    pub fn keep(&self, revocation: &Revocation, all: &Revoked) -> io::Result<()> {
        let kept = self.append(revocation, all).and_then(|done| if done { Ok(()) } else { self.write(all) });
        kept.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }

    /// Returns false if the file has to be written anew: it has gone, is much too long, or ends within a line.
    fn append(&self, revocation: &Revocation, all: &Revoked) -> io::Result<bool> {
        let mut file = match OpenOptions::new().read(true).append(true).open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length > SPARE && length > SPARE + 2 * text_of(all).len() as u64 {
            return Ok(false);
        }
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                return Ok(false);
            }
        }
        let written = file.write_all(format!("{revocation}\n").as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            let _ = file.set_len(length);
        }
        written.map(|()| true)
    }

    /// Puts another file in its place, in one step.
    fn write(&self, all: &Revoked) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(text_of(all).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // A new name is on the disk when its folder is.
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()?;
        }
        Ok(())
    }
}

fn refused(name: &str, why: &str) -> Failure {
    Failure::Usage(format!("--revocations-file: {name:?}: {why}"))
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::default().after(since)
}

fn text_of(all: &Revoked) -> String {
    all.iter().map(|revocation| format!("{revocation}\n")).collect()
}

fn read(path: &Path, ages: &Ages, now: UnixTime) -> Result<Found, String> {
    let mut found = Found::default();
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        file => BufReader::new(file.map_err(|error| error.to_string())?),
    };
    for number in 1.. {
        let mut line = Vec::new();
        (&mut file).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        let is_whole = line.ends_with(b"\n");
        let is_last = !is_whole && (line.len() as u64) < LONGEST_LINE;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        match text.parse::<Revocation>() {
            _ if text.is_empty() => {}
            Ok(revocation) => found.revoked.restore(&revocation, ages, now).map_err(|error| error.to_string())?,
            Err(_) if is_last => found.is_torn = true,
            Err(what) => {
                let then = "what it says counts no longer";
                return Err(format!(
                    "it is damaged: in line {number} {what}; mend that line, or delete it, and {then}"
                ));
            }
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGES: Ages = Ages { leeway: Duration::ZERO, max_token_age: Duration::from_secs(1000) };

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_seconds(seconds)
    }

    /// A folder that ends with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("slotcast-revocations-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn file(&self) -> String {
            self.0.join("revoked").to_str().unwrap().to_owned()
        }

        fn text(&self) -> String {
            fs::read_to_string(self.file()).unwrap()
        }

        fn open(&self, now: u64) -> Result<(Revocations, Revoked), String> {
            Revocations::open_at(&self.file(), &AGES, at(now))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn line(user: &str, at: u64) -> String {
        format!("{{\"user\":\"{user}\",\"before\":{at},\"asked\":{at}}}\n")
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let folder = Folder::new("restart");
        let (file, mut all) = folder.open(5000).unwrap();
        assert!(all.is_empty() && folder.text().is_empty());
        for (user, before) in [("a", 5000), ("b", 5100), ("a", 5200)] {
            let revocation = all.revoke(user, at(before), &AGES, at(before)).unwrap();
            file.keep(&revocation, &all).unwrap();
        }
        assert_eq!(folder.text(), [line("a", 5000), line("b", 5100), line("a", 5200)].concat());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (_, again) = folder.open(5500).unwrap();
        assert!(again.is_revoked("a", at(5199), &AGES, at(5500)) && again.is_revoked("b", at(5099), &AGES, at(5500)));
        assert_eq!((again.len(), folder.text().lines().count()), (2, 2));
        // The tokens of b that were accepted at 5100 ended at 6100.
        let (_, later) = folder.open(6100).unwrap();
        assert_eq!((later.len(), folder.text()), (1, line("a", 5200)));
    }

    #[test]
    fn a_line_that_was_never_confirmed_is_left_out() {
        let folder = Folder::new("torn");
        for end in ["{\"user\":\"b\",\"befo", "\0\0\0"] {
            fs::write(folder.file(), line("a", 5000) + end).unwrap();
            let (_, all) = folder.open(5000).unwrap();
            assert_eq!((all.len(), folder.text()), (1, line("a", 5000)), "{end}");
        }
        // A person may have written it.
        fs::write(folder.file(), line("a", 5000) + "\n\r\n" + line("b", 5000).trim_end()).unwrap();
        assert_eq!(folder.open(5000).unwrap().1.len(), 2);
    }

    #[test]
    fn what_is_damaged_is_refused_with_its_line() {
        let folder = Folder::new("damaged");
        for (text, line_of) in [
            (line("a", 5000) + "x\n" + &line("b", 5000), "it is damaged: in line 2 it is no JSON object; mend"),
            (line("a", 5000).replace("asked", "until"), "it is damaged: in line 1 it has a key that is none of"),
            ("x".repeat(LONGEST_LINE as usize + 1), "it is damaged: in line 1 it is no JSON object; mend"),
            (line("", 5000), "it is damaged: in line 1 its user is none that a token could have; mend"),
        ] {
            fs::write(folder.file(), &text).unwrap();
            let why = folder.open(5000).unwrap_err();
            assert!(why.starts_with(line_of) && why.lines().count() == 1, "{why}");
            assert_eq!(folder.text(), text, "it is as it was");
        }
        fs::remove_file(folder.file()).unwrap();
        fs::create_dir(folder.file()).unwrap();
        assert!(folder.open(5000).is_err());
    }

    #[test]
    fn it_is_written_anew_where_nothing_can_be_added() {
        let folder = Folder::new("anew");
        let (file, mut all) = folder.open(5000).unwrap();
        let mut keep = |user: &str| {
            let revocation = all.revoke(user, at(5000), &AGES, at(5000)).unwrap();
            file.keep(&revocation, &all).unwrap();
            let mut lines: Vec<String> = folder.text().lines().map(str::to_owned).collect();
            lines.sort();
            lines.len()
        };
        assert_eq!(keep("a"), 1);
        fs::remove_file(folder.file()).unwrap();
        assert_eq!(keep("b"), 2);
        fs::write(folder.file(), line("a", 5000) + "{\"us").unwrap();
        assert_eq!(keep("c"), 3);
        fs::write(folder.file(), line("a", 5000).repeat(40_000)).unwrap();
        assert_eq!(keep("d"), 4);
        let _ = fs::remove_dir_all(&folder.0);
        let revocation = all.get("a").unwrap();
        let error = file.keep(&revocation, &all).unwrap_err().to_string();
        assert!(error.contains("revoked: "), "{error}");
    }
}
