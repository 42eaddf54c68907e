//! `--profile`, `[profile.NAME]` and `--format`.

use super::Lowering;
use crate::definition::{Definition, ProfileDefinition};
use crate::model::{Codec, Compression, Format};
use crate::problem::Problem;

const DEFAULT_BLOCK: u32 = 128 << 10;

impl Lowering<'_> {
    /// Compression and formats of the profile that is asked for; `dev` unless said.
    pub(super) fn profile(&mut self, definition: &Definition) -> (Compression, Vec<Format>) {
        let name = self.input.profile.as_deref().unwrap_or("dev");
        let profile = definition
            .profiles
            .get(name)
            .cloned()
            .or_else(|| built_in(name))
            .unwrap_or_else(|| {
                let mut known: Vec<&str> = definition.profiles.keys().map(String::as_str).collect();
                known.extend(
                    ["dev", "release"]
                        .iter()
                        .filter(|b| !definition.profiles.contains_key(**b)),
                );
                let message = format!("there is no profile `{name}`");
                self.problems.push(
                    Problem::error(message)
                        .at(self.name)
                        .hint(format!("profiles here: {}", known.join(", "))),
                );
                ProfileDefinition::default()
            });
        let compression = self.compression(name, &profile);
        let formats = self
            .input
            .formats
            .clone()
            .or(profile.formats)
            .unwrap_or_else(|| vec!["raw".into(), "tar.gz".into()]);
        (compression, self.formats(&formats))
    }

    fn compression(&mut self, name: &str, profile: &ProfileDefinition) -> Compression {
        let text = profile.compression.as_deref().unwrap_or("zstd:3");
        let (codec, level) = parse_compression(text).unwrap_or_else(|reason| {
            let message = format!("compression `{text}` of profile `{name}`: {reason}");
            let hint = "for example zstd:3 (1–22), gzip:9 (1–12), xz, lz4:12 (1–12)";
            self.problems
                .push(Problem::error(message).at(self.name).hint(hint));
            (Codec::Zstd, Some(3))
        });
        let block_size = profile.block_size.unwrap_or(DEFAULT_BLOCK);
        if !block_size.is_power_of_two() || !(4 << 10..=1 << 20).contains(&block_size) {
            let message = format!(
                "block-size {block_size} of profile `{name}` is not a power of two from 4096 to 1048576"
            );
            self.problems.push(Problem::error(message).at(self.name));
        }
        Compression {
            codec,
            level,
            block_size,
        }
    }

    fn formats(&mut self, names: &[String]) -> Vec<Format> {
        let mut formats = Vec::new();
        for name in names {
            match name.as_str() {
                "raw" => formats.push(Format::Raw),
                "tar.gz" => formats.push(Format::TarGz),
                _ => {
                    let message = format!("format `{name}` is not one that Kiln writes");
                    self.problems.push(
                        Problem::error(message)
                            .at(self.name)
                            .hint("formats: raw, tar.gz"),
                    );
                }
            }
        }
        formats.sort();
        formats.dedup();
        formats
    }
}

fn built_in(name: &str) -> Option<ProfileDefinition> {
    let compression = match name {
        "dev" => "zstd:3",
        "release" => "zstd:19",
        _ => return None,
    };
    Some(ProfileDefinition {
        compression: Some(compression.to_owned()),
        ..ProfileDefinition::default()
    })
}

/// `zstd:3`, `xz`: codec and level in the codec's own scale.
fn parse_compression(text: &str) -> Result<(Codec, Option<u32>), String> {
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (
            name,
            Some(
                level
                    .parse::<u32>()
                    .map_err(|_| format!("`{level}` is not a level"))?,
            ),
        ),
        None => (text, None),
    };
    let (codec, range, default) = match name {
        "zstd" => (Codec::Zstd, 1..=22, 3),
        "gzip" => (Codec::Gzip, 1..=12, 9),
        "lz4" => (Codec::Lz4, 1..=12, 12),
        "xz" => (Codec::Xz, 0..=9, 6),
        _ => return Err(format!("`{name}` is not a codec")),
    };
    let level = level.unwrap_or(default);
    if !range.contains(&level) {
        return Err(format!(
            "level {level} is outside {} to {}",
            range.start(),
            range.end()
        ));
    }
    Ok((codec, Some(level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_texts() {
        assert_eq!(parse_compression("zstd:19"), Ok((Codec::Zstd, Some(19))));
        assert_eq!(parse_compression("xz"), Ok((Codec::Xz, Some(6))));
        assert!(parse_compression("zstd:23").is_err());
        assert!(parse_compression("brotli").is_err());
        assert!(parse_compression("gzip:x").is_err());
    }
}
