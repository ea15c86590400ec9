//! Outside text, made safe to print.

/// Makes outside text safe to print: control and bidirectional characters, and those that take no
/// room, become `\u{…}`.
///
/// ```
/// use signet_trust::payload::escape;
///
/// assert_eq!(escape("v1.2"), "v1.2");
/// assert_eq!(escape("a\u{202e}b\n"), "a\\u{202e}b\\u{a}");
/// ```
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that move the cursor, turn the direction of text, or cannot be seen (Unicode
/// general categories Cc, Cf, Zl, Zp, and the fillers that render as nothing).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unprintable_gets_through() {
        for c in [
            '\0', '\u{1b}', '\u{7f}', '\u{9b}', '\u{200f}', '\u{202e}', '\u{2066}', '\u{feff}',
        ] {
            let escaped = escape(&format!("a{c}b"));
            assert!(
                escaped.is_ascii() && escaped.contains("\\u{"),
                "{escaped:?}"
            );
        }
        assert_eq!(escape("café/日本-1_2.x"), "café/日本-1_2.x");
    }
}
