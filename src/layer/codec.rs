//! Compressors of layers: what a blob's media type says, to and from the bytes of its tar.
//!
//! gzip: several members are one stream (RFC 1952, 2.2), zero padding after the last is
//! accepted, anything else there is refused. zstd: frames and skippable frames in any number
//! (RFC 8878), with a limit on the window. What is written is one member or frame without a
//! time or a name, so that the same bytes give the same blob.

use crate::oci::{Compression, Descriptor, media_type};
use crate::store::{Exceeded, Limit, VerifyError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::str::FromStr;

/// Size of the buffer before a decompressor, in bytes.
const BUFFER: usize = 256 << 10;

type Source<R> = BufReader<R>;

/// Reads what a compressed stream inflates to; at its end the stream below is read to its own
/// end, so that a [`crate::store::Verified`] there has its say, also on a stream that cannot be
/// inflated.
pub struct Decoder<R: Read>(State<R>);

#[allow(clippy::large_enum_variant, reason = "one lives per layer under way")]
enum State<R: Read> {
    Plain(Source<R>),
    Gzip(Gzip<R>),
    Zstd(Box<zstd::Decoder<'static, Source<R>>>, u32),
}

impl<R: Read> Decoder<R> {
    /// Inflates `inner`; a zstd stream's window may have at most `2^zstd_window_log` bytes: the error
    /// of one with a larger window carries an [`Exceeded`].
    ///
    /// # Errors
    /// Where the zstd library cannot be set up.
    pub fn new(inner: R, compression: Compression, zstd_window_log: u32) -> io::Result<Self> {
        let mut inner = BufReader::with_capacity(BUFFER, inner);
        Ok(Self(match actual(compression, inner.fill_buf()?) {
            Compression::None => State::Plain(inner),
            Compression::Gzip => {
                State::Gzip(Gzip { member: Some(flate2::bufread::GzDecoder::new(inner)), rest: None })
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(inner)?;
                decoder.window_log_max(zstd_window_log)?;
                State::Zstd(Box::new(decoder), zstd_window_log)
            }
        }))
    }

    /// The stream below has to end where the compressed one does.
    fn check_end(&mut self) -> io::Result<()> {
        let inner = match &mut self.0 {
            State::Plain(b) | State::Gzip(Gzip { member: None, rest: Some(b) }) => b,
            State::Gzip(Gzip { member: Some(m), .. }) => m.get_mut(),
            State::Gzip(_) => return Ok(()),
            State::Zstd(d, _) => d.get_mut(),
        };
        io::copy(inner, &mut io::sink()).map(drop)
    }

    /// A stream that cannot be read may be a damaged blob: then the digest says so.
    fn blame(&mut self, e: io::Error) -> io::Error {
        let is_verify =
            |e: &io::Error| e.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<VerifyError>);
        if is_verify(&e) {
            return e;
        }
        match self.check_end() {
            Err(v) if is_verify(&v) => v,
            _ => e,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.0 {
            State::Plain(b) => b.read(buffer),
            State::Gzip(g) => g.read(buffer),
            State::Zstd(d, window_log) => d.read(buffer).map_err(|e| explain(e, *window_log)),
        };
        match read {
            Ok(0) if !buffer.is_empty() => self.check_end().map(|()| 0),
            Ok(n) => Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(self.blame(e)),
        }
    }
}

/// The limit that an error of the zstd library, which is only a text, stands for.
fn explain(e: io::Error, window_log: u32) -> io::Error {
    use zstd::zstd_safe::{
        get_error_name, zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge,
    };
    // As the library returns it (zstd_errors.h).
    let code = (ZSTD_error_frameParameter_windowTooLarge as usize).wrapping_neg();
    if e.get_ref().is_none_or(|inner| inner.to_string() != get_error_name(code)) {
        return e;
    }
    let exceeded = Exceeded { limit: Limit::ZstdWindow, most: 1 << window_log };
    io::Error::new(io::ErrorKind::InvalidData, exceeded)
}

/// How a stream that begins so is compressed. containers/image declares gzip for layers that it
/// leaves uncompressed, as in `podman save --format docker-dir`; what tells is the tar's magic.
fn actual(declared: Compression, start: &[u8]) -> Compression {
    match declared {
        Compression::Gzip if start.get(257..262) == Some(b"ustar") && !start.starts_with(b"\x1f\x8b") => {
            Compression::None
        }
        declared => declared,
    }
}

/// Members of a gzip stream, one after the other, and the padding after them.
struct Gzip<R: Read> {
    /// The member being read; none after the last.
    member: Option<flate2::bufread::GzDecoder<Source<R>>>,
    /// What comes after the last member.
    rest: Option<Source<R>>,
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            let Some(mut inner) = self.member.take().map(flate2::bufread::GzDecoder::into_inner) else {
                break;
            };
            let next = inner.fill_buf()?.first();
            match next {
                Some(0x1f) => self.member = Some(flate2::bufread::GzDecoder::new(inner)),
                _ => skip_zeros(self.rest.insert(inner))?,
            }
        }
        Ok(0)
    }
}

fn skip_zeros(inner: &mut impl BufRead) -> io::Result<()> {
    loop {
        let rest = inner.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.iter().any(|&b| b != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "garbage after the gzip stream"));
        }
        let n = rest.len();
        inner.consume(n);
    }
}

/// How a layer is to be written: `gzip`, `zstd` or `none`, and the level as in `zstd:19`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    /// The format.
    pub compression: Compression,
    /// The compressor's own level.
    pub level: i32,
}

/// A coding that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("invalid compression {0:?}: wanted none, gzip[:1-9] or zstd[:1-22]")]
pub struct InvalidCoding(String);

impl FromStr for Coding {
    type Err = InvalidCoding;

    fn from_str(text: &str) -> Result<Self, InvalidCoding> {
        let (name, level) = text.split_once(':').map_or((text, None), |(n, l)| (n, Some(l)));
        let (compression, default, allowed) = match name {
            "none" => (Compression::None, 0, 0..=0),
            "gzip" => (Compression::Gzip, 6, 1..=9),
            "zstd" => (Compression::Zstd, 3, 1..=22),
            _ => return Err(InvalidCoding(text.to_string())),
        };
        let level = level.map_or(Ok(default), str::parse).map_err(|_| InvalidCoding(text.to_string()))?;
        if allowed.contains(&level) {
            Ok(Self { compression, level })
        } else {
            Err(InvalidCoding(text.to_string()))
        }
    }
}

impl Default for Coding {
    fn default() -> Self {
        Self { compression: Compression::Gzip, level: 6 }
    }
}

impl Coding {
    /// The media type of a layer that is written so, of the same family as `like`'s.
    #[must_use]
    pub fn media_type(self, like: &Descriptor) -> &'static str {
        use media_type as m;
        let docker = like.media_type.starts_with("application/vnd.docker.");
        match (self.compression, docker) {
            (Compression::None, false) => m::LAYER,
            (Compression::Gzip, false) => m::LAYER_GZIP,
            (Compression::Zstd, false) => m::LAYER_ZSTD,
            (Compression::None, true) => m::DOCKER_LAYER,
            (Compression::Gzip, true) => m::DOCKER_LAYER_GZIP,
            (Compression::Zstd, true) => m::DOCKER_LAYER_ZSTD,
        }
    }
}

/// Compresses what is written into it; [`Encoder::finish`] ends the stream.
pub enum Encoder<W: Write> {
    /// As it is.
    Plain(W),
    /// RFC 1952.
    Gzip(flate2::write::GzEncoder<W>),
    /// RFC 8878.
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Compresses into `inner`.
    ///
    /// # Errors
    /// Where the zstd library cannot be set up.
    pub fn new(inner: W, coding: Coding) -> io::Result<Self> {
        Ok(match coding.compression {
            Compression::None => Self::Plain(inner),
            Compression::Gzip => {
                let level = flate2::Compression::new(coding.level.unsigned_abs());
                Self::Gzip(flate2::write::GzEncoder::new(inner, level))
            }
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(inner, coding.level)?),
        })
    }

    /// Ends the stream; gives what it was written into.
    ///
    /// # Errors
    /// Those of `inner`.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(mut w) => w.flush().map(|()| w),
            Self::Gzip(e) => e.finish(),
            Self::Zstd(e) => e.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(w) => w.write(buf),
            Self::Gzip(e) => e.write(buf),
            Self::Zstd(e) => e.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(w) => w.flush(),
            Self::Gzip(e) => e.flush(),
            Self::Zstd(e) => e.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_declared_as_gzip_is_read() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let mut back = Vec::new();
        Decoder::new(&tar[..], Compression::Gzip, 24).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, tar);
        assert!(Decoder::new(&tar[..100], Compression::Gzip, 24).unwrap().read_to_end(&mut back).is_err());
    }

    #[test]
    fn there_and_back() {
        for text in ["none", "gzip", "gzip:9", "zstd", "zstd:19"] {
            let coding: Coding = text.parse().unwrap();
            let encode = || {
                let mut e = Encoder::new(Vec::new(), coding).unwrap();
                e.write_all(&b"layer".repeat(1000)).unwrap();
                e.finish().unwrap()
            };
            let bytes = encode();
            assert_eq!(bytes, encode(), "{text}: the same each time");
            let mut back = Vec::new();
            Decoder::new(&bytes[..], coding.compression, 24).unwrap().read_to_end(&mut back).unwrap();
            assert_eq!(back, b"layer".repeat(1000), "{text}");
        }
        for text in ["", "gzip:0", "gzip:x", "zstd:23", "none:1", "xz"] {
            assert!(text.parse::<Coding>().is_err(), "{text}");
        }
    }
}
