//! What the guest shows: reading QEMU's screen dumps, judging whether a desktop is drawn and at rest, writing PNG.
//!
//! QEMU's `screendump` writes binary PPM (`P6`, <https://netpbm.sourceforge.net/doc/ppm.html>); PNG output is an
//! option that not every QEMU is built with.

use std::time::{Duration, Instant};

use serde::Serialize;

/// A picture of 8-bit RGB pixels, row by row.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// What a screenshot shows, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScreenFigures {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Different colours. Text screens have up to 16, a drawn desktop thousands.
    pub colours: u32,
    /// Whether it is (nearly) black but for what a pointer or a cursor takes, a hundredth at most.
    pub black: bool,
}

/// More than any display mode.
const PIXEL_LIMIT: u64 = 64 << 20;
/// A channel value up to which a pixel counts as black.
const BLACK: u8 = 8;
/// One pixel of so many may be lit in a black picture. The smallest panel takes a fortieth.
const LIT_PART: usize = 100;

impl Picture {
    /// Reads a binary PPM with 8-bit channels.
    pub(crate) fn from_ppm(bytes: &[u8]) -> Result<Picture, String> {
        let mut rest = bytes
            .strip_prefix(b"P6")
            .ok_or("it does not start with P6")?;
        let width = ppm_number(&mut rest)?;
        let height = ppm_number(&mut rest)?;
        if ppm_number(&mut rest)? != 255 {
            return Err("its channels are not 8 bits".into());
        }
        // One blank ends the header.
        let [_, pixels @ ..] = rest else {
            return Err("it ends with its header".into());
        };
        let wanted = u64::from(width) * u64::from(height);
        if wanted == 0 || wanted > PIXEL_LIMIT || pixels.len() as u64 != wanted * 3 {
            return Err(format!(
                "{} bytes of pixels do not make {width} × {height}",
                pixels.len()
            ));
        }
        Ok(Picture {
            width,
            height,
            pixels: pixels.to_vec(),
        })
    }

    /// Encodes as PNG.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(out)
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.pixels.chunks_exact(3)
    }

    pub(crate) fn figures(&self) -> ScreenFigures {
        // One bit for each of the 2^24 colours.
        let mut seen = vec![0u64; (1 << 24) / 64];
        let mut colours = 0;
        for pixel in self.each() {
            let colour = pixel
                .iter()
                .fold(0usize, |all, channel| all << 8 | usize::from(*channel));
            let (word, bit) = (colour / 64, 1u64 << (colour % 64));
            if let Some(word) = seen.get_mut(word)
                && *word & bit == 0
            {
                *word |= bit;
                colours += 1;
            }
        }
        let lit = |pixel: &&[u8]| pixel.iter().any(|channel| *channel > BLACK);
        let black = self.each().filter(lit).count() * LIT_PART <= self.each().count();
        ScreenFigures {
            width: self.width,
            height: self.height,
            colours,
            black,
        }
    }

    /// How much of the picture differs, from 0 to 1.
    pub(crate) fn difference(&self, other: &Picture) -> f64 {
        if (self.width, self.height) != (other.width, other.height) {
            return 1.0;
        }
        let changed = self
            .each()
            .zip(other.each())
            .filter(|(a, b)| a != b)
            .count();
        changed as f64 / f64::from(self.width) / f64::from(self.height)
    }
}

fn ppm_number(rest: &mut &[u8]) -> Result<u32, String> {
    loop {
        match rest {
            [b'#', ..] => {
                let end = rest.iter().position(|b| *b == b'\n');
                *rest = &rest[end.ok_or("it ends in a comment of its header")?..];
            }
            [byte, after @ ..] if byte.is_ascii_whitespace() => *rest = after,
            _ => break,
        }
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = rest.split_at(digits);
    *rest = after;
    let number = std::str::from_utf8(number).ok();
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| "its header holds no size".to_owned())
}

/// Colours of a desktop with a picture behind it.
const RICH: u32 = 1000;
/// Colours that letters and icons make on a plain background; a text console has at most 16.
const PLAIN: u32 = 64;
/// The clock, a cursor: less than this may differ between two looks at a screen at rest.
const RESTLESS: f64 = 0.005;
/// How long the screen must have been at rest. Windows exist 3 to 5 seconds before the wallpaper is drawn.
const REST: Duration = Duration::from_secs(6);
/// How long the wallpaper may take after the windows exist, before a plain background is believed.
const WALLPAPER: Duration = Duration::from_secs(45);
/// After this a screen that is drawn but never at rest is taken as it is: something on it is animated.
const ANIMATED: Duration = Duration::from_secs(90);

/// How a desktop's screen was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drawn {
    /// Over 1,000 colours and at rest.
    AtRest,
    /// At rest for long with fewer colours: a plain background.
    Plain,
    /// Over 1,000 colours, but something keeps moving.
    Animated,
}

/// Follows the screen from the moment the desktop's windows exist.
pub(crate) struct ScreenWatch {
    since: Instant,
    last: Option<Picture>,
    still_since: Instant,
    pace: f64,
}

impl ScreenWatch {
    /// `pace` says how many times slower than usual the machine is.
    pub(crate) fn new(now: Instant, pace: f64) -> Self {
        ScreenWatch {
            since: now,
            last: None,
            still_since: now,
            pace,
        }
    }

    /// Takes a look; returns how the desktop is drawn once it is.
    pub(crate) fn look(&mut self, picture: Picture, now: Instant) -> Option<Drawn> {
        let still = self
            .last
            .as_ref()
            .is_some_and(|last| last.difference(&picture) < RESTLESS);
        if !still {
            self.still_since = now;
        }
        let figures = picture.figures();
        self.last = Some(picture);
        let rest = now.duration_since(self.still_since) >= REST.mul_f64(self.pace);
        let age = now.duration_since(self.since).div_f64(self.pace);
        match figures {
            ScreenFigures { black: true, .. } => None,
            ScreenFigures { colours, .. } if colours > RICH && rest => Some(Drawn::AtRest),
            ScreenFigures { colours, .. } if colours > RICH && age >= ANIMATED => {
                Some(Drawn::Animated)
            }
            ScreenFigures { colours, .. } if colours > PLAIN && rest && age >= WALLPAPER => {
                Some(Drawn::Plain)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, pixel: impl Fn(u32) -> [u8; 3]) -> Picture {
        Picture {
            width,
            height,
            pixels: (0..width * height).flat_map(pixel).collect(),
        }
    }

    fn wallpaper() -> Picture {
        picture(100, 100, |i| [i as u8, (i >> 8) as u8, 90])
    }

    fn seconds(start: Instant, after: u64) -> Instant {
        start + Duration::from_secs(after)
    }

    #[test]
    fn ppm_is_read_and_png_reads_back_the_same() {
        let mut ppm = b"P6\n# a comment\n3 2\n255\n".to_vec();
        ppm.extend(0..18u8);
        let read = Picture::from_ppm(&ppm).unwrap();
        assert_eq!((read.width, read.height), (3, 2));
        let png = read.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, read.pixels);
    }

    #[test]
    fn broken_ppm_is_an_error() {
        for bad in [
            "",
            "P5\n1 1\n255\nx",
            "P6",
            "P6\n0 0\n255\n",
            "P6\n1 1\n65535\nxxxxxx",
            "P6\n2 2\n255\nabc",
            "P6\n#",
            "P6\n99999999 99999999\n255\n",
        ] {
            assert!(Picture::from_ppm(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn figures_count_colours_and_know_black() {
        assert!(picture(4, 4, |_| [3, 0, 8]).figures().black);
        let pointer = picture(100, 100, |i| [if i < 100 { i as u8 + 99 } else { 0 }; 3]).figures();
        assert!(pointer.black && pointer.colours > PLAIN);
        let panel = picture(100, 100, |i| [if i < 250 { i as u8 } else { 0 }; 3]).figures();
        assert!(!panel.black);
        let figures = wallpaper().figures();
        assert_eq!((figures.colours, figures.black), (10_000, false));
        assert_eq!(wallpaper().difference(&picture(10, 10, |_| [0; 3])), 1.0);
    }

    #[test]
    fn a_desktop_must_be_rich_and_at_rest() {
        let start = Instant::now();
        let mut watch = ScreenWatch::new(start, 1.0);
        assert_eq!(watch.look(picture(100, 100, |_| [0; 3]), start), None);
        assert_eq!(
            watch.look(wallpaper(), seconds(start, 1)),
            None,
            "it has just changed"
        );
        assert_eq!(watch.look(wallpaper(), seconds(start, 3)), None);
        assert_eq!(
            watch.look(wallpaper(), seconds(start, 7)),
            Some(Drawn::AtRest)
        );
    }

    #[test]
    fn text_and_black_never_pass_plain_and_animated_pass_late() {
        let start = Instant::now();
        let text = |i: u32| [[0; 3], [170; 3]][(i % 2) as usize];
        let mut console = ScreenWatch::new(start, 1.0);
        let mut black = ScreenWatch::new(start, 1.0);
        let mut plain = ScreenWatch::new(start, 1.0);
        for second in 0..300 {
            let now = seconds(start, second);
            assert_eq!(console.look(picture(100, 100, text), now), None);
            assert_eq!(black.look(picture(100, 100, |_| [0; 3]), now), None);
            let drawn = plain.look(picture(100, 100, |i| [(i % 200) as u8, 9, 9]), now);
            assert_eq!(
                drawn,
                (second >= 45).then_some(Drawn::Plain),
                "second {second}"
            );
        }
        let mut moving = ScreenWatch::new(start, 1.0);
        assert_eq!(moving.look(wallpaper(), seconds(start, 10)), None);
        let other = picture(100, 100, |i| [(i >> 8) as u8, i as u8, 7]);
        assert_eq!(
            moving.look(other, seconds(start, 90)),
            Some(Drawn::Animated)
        );
    }
}
