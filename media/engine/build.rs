//! Embeds the pages of `media/web` in the engine: each file uncompressed and, if that saves at
//! least 10 %, gzipped, with an ETag.
//!
//! Writes `OUT_DIR/assets.rs`, a table that `src/http/pages/assets.rs` includes.

use std::error::Error;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Files of npm packages: served name and path below `node_modules`.
const NPM_FILES: [(&str, &str); 2] =
    [("assets/hls.js", "hls.js/dist/hls.light.min.js"), ("assets/hls.LICENSE.txt", "hls.js/LICENSE")];

fn main() -> Result<(), Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "cargo passes parameters to a build script in environment variables")]
    let env_var = |name: &str| env::var(name);
    // Not `env!`: with a target folder that several checkouts share, the script may have been built
    // in another checkout.
    let web = PathBuf::from(env_var("CARGO_MANIFEST_DIR")?).join("../web");
    let (out, release) = (PathBuf::from(env_var("OUT_DIR")?), env_var("PROFILE")? == "release");
    let mut files = Vec::new();
    for folder in ["pages", "assets"] {
        println!("cargo:rerun-if-changed={}", web.join(folder).display());
        collect_files(&web.join(folder), folder, &mut files)?;
    }
    for (name, source) in NPM_FILES {
        let path = web.join("node_modules").join(source);
        println!("cargo:rerun-if-changed={}", path.display());
        if path.is_file() {
            files.push((name.to_owned(), path));
        } else if release {
            return Err("hls.js is missing: run `npm ci --prefix media/web` first".into());
        } else if name.ends_with(".js") {
            println!("cargo:warning=hls.js is missing, pages cannot play HLS: run `npm ci --prefix media/web`");
        }
    }
    files.sort();
    let mut table = "&[\n".to_owned();
    for (index, (name, path)) in files.iter().enumerate() {
        let plain = fs::read(path)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&plain);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&plain)?;
        let gzip = encoder.finish()?;
        let (plain_file, gzip_file) = (out.join(format!("asset-{index}")), out.join(format!("asset-{index}.gz")));
        fs::write(&plain_file, &plain)?;
        let smaller = gzip.len() < plain.len() * 9 / 10;
        fs::write(&gzip_file, if smaller { &gzip[..] } else { &[] })?;
        writeln!(
            table,
            "Asset {{ name: {name:?}, mime: {:?}, etag: {etag:?}, plain: include_bytes!({plain_file:?}), \
             gzip: include_bytes!({gzip_file:?}) }},",
            mime(name)?
        )?;
    }
    table.push(']');
    fs::write(out.join("assets.rs"), table)?;
    Ok(())
}

fn collect_files(folder: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_str().ok_or("a file name is not UTF-8")?);
        if entry.file_type()?.is_dir() {
            collect_files(&entry.path(), &name, files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}

fn mime(name: &str) -> Result<&'static str, String> {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => Ok("text/html; charset=utf-8"),
        Some("css") => Ok("text/css; charset=utf-8"),
        Some("js") => Ok("text/javascript; charset=utf-8"),
        Some("svg") => Ok("image/svg+xml"),
        Some("txt") => Ok("text/plain; charset=utf-8"),
        _ => Err(format!("no media type is known for {name}")),
    }
}
