//! The offer as a QR code on the terminal, for a telephone that carries it to the other host.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use crate::ui::terminal;

/// Shows it, where the terminal can.
pub(super) fn show(line: &str) {
    // A line of at most 512 bytes fits (ISO/IEC 18004: 2,953 at level L).
    let Ok(code) = QrCode::with_error_correction_level(line, EcLevel::L) else {
        return;
    };
    // Terminals are dark more often than not: what is light is drawn.
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    terminal::show(&image.lines().map(str::to_owned).collect::<Vec<_>>());
}
