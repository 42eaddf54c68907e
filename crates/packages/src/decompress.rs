//! Decompression of what repositories compress: indices, and what is in package files.

use std::io::{BufReader, Read};

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Bzip2,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// By the end of a file name: `Packages.xz`, `data.tar.zst`.
    pub(crate) fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("bz2") => Compression::Bzip2,
            Some("gz") => Compression::Gzip,
            Some("xz" | "lzma") => Compression::Xz,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The end of a file's name that says so.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Bzip2 => ".bz2",
            Compression::Gzip => ".gz",
            Compression::Xz => ".xz",
            Compression::Zstd => ".zst",
        }
    }

    /// A reader of the plain bytes. Concatenated streams are read to their end.
    pub(crate) fn reader<'a>(
        self,
        reader: impl Read + Send + 'a,
    ) -> std::io::Result<Box<dyn Read + Send + 'a>> {
        let reader = BufReader::with_capacity(128 << 10, reader);
        Ok(match self {
            Compression::None => Box::new(reader),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
            Compression::Xz => {
                // 128 MiB holds the window of every preset; more is not for repositories. What is read here has the SHA-256
                // that a signature leads to, so a weaker check of every byte would tell nothing.
                let flags = liblzma::stream::CONCATENATED | liblzma::stream::IGNORE_CHECK;
                let stream = liblzma::stream::Stream::new_auto_decoder(256 << 20, flags)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
            }
        })
    }
}
