//! Sizes as rectangles whose areas are theirs (a squarified treemap, Bruls, Huizing and van Wijk 2000).

use maud::{Markup, html};

use super::ansi;
use super::parts::{cell, size};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 360.0;
/// The width of a letter.
const LETTER: f64 = 8.6;

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// Draws sizes, the largest of which stands first.
pub(super) fn draw(sizes: &[(String, u64)]) -> Markup {
    let numbers: Vec<f64> = sizes.iter().map(|(_, bytes)| *bytes as f64).collect();
    let whole = Area {
        x: 0.0,
        y: 0.0,
        width: WIDTH,
        height: HEIGHT,
    };
    let areas = lay(&numbers, whole);
    html! {
        svg.treemap viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label="Size by package; the table below has all figures" {
            @for (at, ((name, bytes), area)) in sizes.iter().zip(&areas).enumerate() {
                g {
                    title { (cell(name)) ", " (size(*bytes)) }
                    rect class={ "t" (at % 4) } x=(short(area.x)) y=(short(area.y)) width=(short(area.width)) height=(short(area.height)) {}
                    @if let Some(label) = label(name, area) {
                        text x=(short(area.x + 6.0)) y=(short(area.y + 19.0)) { (label) }
                        @if area.height > 44.0 && area.width > 70.0 { text.quiet x=(short(area.x + 6.0)) y=(short(area.y + 37.0)) { (size(*bytes)) } }
                    }
                }
            }
        }
    }
}

fn short(number: f64) -> String {
    format!("{number:.1}")
}

/// A name, if enough of it fits.
fn label(name: &str, area: &Area) -> Option<String> {
    let room = ((area.width - 12.0) / LETTER).max(0.0) as usize;
    let name = ansi::plain(name);
    if area.height < 24.0 || room < 4 {
        return None;
    }
    if name.chars().count() <= room {
        return Some(name);
    }
    let start: String = name.chars().take(room - 1).collect();
    Some(format!("{start}…"))
}

/// Lays rectangles out in rows along the shorter side, each row as long as its rectangles get squarer.
fn lay(sizes: &[f64], mut rest: Area) -> Vec<Area> {
    let total: f64 = sizes.iter().sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let scale = rest.width * rest.height / total;
    let mut areas = Vec::new();
    let mut from = 0;
    while from < sizes.len() {
        let side = rest.width.min(rest.height).max(f64::EPSILON);
        let mut to = from + 1;
        while to < sizes.len()
            && worst(&sizes[from..=to], side, scale) <= worst(&sizes[from..to], side, scale)
        {
            to += 1;
        }
        let row: f64 = sizes[from..to].iter().sum::<f64>() * scale;
        let thick = row / side;
        let mut at = 0.0;
        for size in &sizes[from..to] {
            let long = size * scale / thick.max(f64::EPSILON);
            areas.push(if rest.width >= rest.height {
                Area {
                    x: rest.x,
                    y: rest.y + at,
                    width: thick,
                    height: long,
                }
            } else {
                Area {
                    x: rest.x + at,
                    y: rest.y,
                    width: long,
                    height: thick,
                }
            });
            at += long;
        }
        if rest.width >= rest.height {
            rest = Area {
                x: rest.x + thick,
                width: (rest.width - thick).max(0.0),
                ..rest
            };
        } else {
            rest = Area {
                y: rest.y + thick,
                height: (rest.height - thick).max(0.0),
                ..rest
            };
        }
        from = to;
    }
    areas
}

/// How far the rectangle of a row that is least square is from one.
fn worst(row: &[f64], side: f64, scale: f64) -> f64 {
    let sum: f64 = row.iter().sum::<f64>() * scale;
    let ratio = |size: &f64| {
        let area = (size * scale).max(f64::EPSILON);
        let thick = sum / side;
        let long = area / thick;
        (long / thick).max(thick / long)
    };
    row.iter().map(ratio).fold(1.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_fill_the_area_in_proportion() {
        let sizes = [6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0];
        let whole = Area {
            x: 0.0,
            y: 0.0,
            width: 600.0,
            height: 400.0,
        };
        let areas = lay(&sizes, whole);
        assert_eq!(areas.len(), sizes.len());
        for (size, area) in sizes.iter().zip(&areas) {
            assert!(
                (area.width * area.height - size * 10_000.0).abs() < 1.0,
                "{area:?}"
            );
            assert!(area.x >= -0.1 && area.x + area.width <= 600.1, "{area:?}");
            assert!(area.y >= -0.1 && area.y + area.height <= 400.1, "{area:?}");
        }
        assert!(lay(&[], whole).is_empty() && lay(&[0.0], whole).is_empty());
    }
}
