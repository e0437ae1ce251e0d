//! The archive that a `.keras` file is: a zip of a configuration and an HDF5 file of weights, which Keras does not compress.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::{format_error, unreadable};
use crate::error::{Error, Result};
use crate::files;

/// The members' names, which are the same in every file.
const CONFIG: &str = "config.json";
const METADATA: &str = "metadata.json";
const WEIGHTS: &str = "model.weights.h5";

/// How much larger than the whole file a member may be. Keras compresses nothing; an archive packed again may have been.
const MOST_EXPANSION: u64 = 32;

/// What a `.keras` file holds.
pub(super) struct Archive {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
}

fn check_beginning(beginning: &[u8], path: &Path) -> Result<()> {
    if super::variables::is_hdf5(beginning) {
        return Err(Error::unsupported(
            format!("{}: the HDF5 file of a whole model, as Keras 2 wrote them,", path.display()),
            "load it in Keras 3 and save it as .keras; weights alone (.weights.h5) need the model as well",
        ));
    }
    match files::begins_as_zip(beginning) {
        true => Ok(()),
        false => Err(format_error(path, "it does not begin as a zip archive does, which a .keras file is")),
    }
}

impl Archive {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        // What is something else says so by its first bytes: it is not read whole.
        Self::parse(&files::read_after(path, |beginning, _| check_beginning(beginning, path))?, path)
    }

    /// Takes the archive apart.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        check_beginning(bytes, path)?;
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format_error(path, unreadable("zip", e)))?;
        let most = MOST_EXPANSION.saturating_mul(bytes.len() as u64);
        let mut member = |name: &str| -> Result<Vec<u8>> {
            let absent = |e| format_error(path, unreadable(&format!("member {name}"), e));
            let mut member = archive.by_name(name).map_err(absent)?;
            let size = member.size();
            if size > most {
                let packed = member.compressed_size();
                let problem = format!(
                    "member {name} is said to have {size} bytes packed into {packed}, more than {MOST_EXPANSION} times the file; \
                     Keras writes members as they are"
                );
                return Err(format_error(path, problem));
            }
            // Not by the size that is said: it may be wrong.
            let mut content = Vec::new();
            member
                .by_ref()
                .take(most + 1)
                .read_to_end(&mut content)
                .map_err(|e| format_error(path, unreadable(&format!("member {name}"), e)))?;
            if content.len() as u64 > most {
                return Err(format_error(path, format!("member {name} is more than {MOST_EXPANSION} times the file")));
            }
            Ok(content)
        };
        Ok(Archive { config: member(CONFIG)?, weights: member(WEIGHTS)? })
    }

    /// Puts it together. The same content gives the same bytes.
    pub fn bytes(&self, metadata: &[u8], path: &Path) -> Result<Vec<u8>> {
        let problem = |e: &dyn std::fmt::Display| format_error(path, e.to_string());
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default());
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in [(METADATA, metadata), (CONFIG, &self.config), (WEIGHTS, &self.weights)] {
            zip.start_file(name, options).map_err(|e| problem(&e))?;
            zip.write_all(content).map_err(|e| problem(&e))?;
        }
        Ok(zip.finish().map_err(|e| problem(&e))?.into_inner())
    }
}
