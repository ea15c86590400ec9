//! Which requests a rule is about.

/// A method, or any; and a path in which `*` stands for any run of characters.
#[derive(Debug)]
pub(super) struct Pattern {
    method: Option<String>,
    path: String,
}

impl Pattern {
    /// Reads `PATH` or `METHOD PATH`.
    pub(super) fn new(text: &str) -> Self {
        match text.split_once(' ') {
            Some((method, path)) => Self {
                method: Some(method.to_owned()),
                path: path.to_owned(),
            },
            None => Self {
                method: None,
                path: text.to_owned(),
            },
        }
    }

    pub(super) fn names(&self, method: &str, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method) && matches(&self.path, path)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    let mut ends = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
    ends.any(|at| matches(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let names = |pattern, path| Pattern::new(pattern).names("GET", path);
        assert!(names(
            "*/timestamp.json",
            "/v2/reg/a/_trust/tuf/timestamp.json"
        ));
        assert!(names(
            "/v2/*/targets*.json",
            "/v2/a/b/targets/releases.ab12.json"
        ));
        assert!(names("*", ""));
        assert!(!names("*/timestamp.json", "/v2/timestamp.json/"));
        assert!(!names("/v2", "/v2/"));
    }

    #[test]
    fn a_method_narrows_the_pattern() {
        let pattern = Pattern::new("POST /v2/*");
        assert!(pattern.names("POST", "/v2/x"));
        assert!(!pattern.names("GET", "/v2/x"));
    }
}
