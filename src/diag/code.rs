//! The table of codes. A code is stable: it is what `--allow` names and what a page of the docs explains.

use super::Severity;

macro_rules! codes {
    ($($variant:ident = $code:literal, $name:literal, $severity:ident;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($variant),* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// `R012`
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code),* }
            }

            /// `unknown-key`
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            pub fn severity(self) -> Severity {
                match self { $(Code::$variant => Severity::$severity),* }
            }
        }
    };
}

codes! {
    YamlSyntax = "R001", "yaml-syntax", Error;
    DuplicateKey = "R002", "duplicate-key", Error;
    UnreadableFile = "R003", "unreadable-file", Error;
    NoRoutes = "R004", "no-routes", Error;
    IgnoredFile = "R005", "ignored-file", Warning;
    SwallowedTemplate = "R006", "swallowed-template", Warning;
    UnknownKey = "R012", "unknown-key", Error;
    MissingKey = "R013", "missing-key", Error;
    WrongType = "R014", "wrong-type", Error;
    InvalidValue = "R015", "invalid-value", Error;
    NotBuiltYet = "R016", "not-built-yet", Error;
    JsonPathSyntax = "R020", "jsonpath-syntax", Error;
    TemplateSyntax = "R021", "template-syntax", Error;
    UnknownName = "R022", "unknown-name", Error;
    RegexSyntax = "R023", "regex-syntax", Error;
    DuplicateName = "R030", "duplicate-name", Error;
    PathConflict = "R031", "path-conflict", Error;
    UnknownReference = "R032", "unknown-reference", Error;
    NeedsCycle = "R033", "needs-cycle", Error;
    UnsetVariable = "R040", "unset-variable", Error;
    UnreadableSecret = "R041", "unreadable-secret", Error;
    LiteralSecret = "R042", "literal-secret", Warning;
    UnverifiedSource = "R050", "unverified-source", Warning;
    DerivedEventId = "R051", "derived-event-id", Warning;
    FirstHitOfMany = "R052", "first-hit-of-many", Warning;
    UnsafeRepeat = "R053", "unsafe-repeat", Warning;
    RawUrl = "R054", "raw-url", Warning;
    SharedKey = "R055", "shared-key", Warning;
    ConstantKey = "R056", "constant-key", Error;
    ShortDedupe = "R057", "short-dedupe", Warning;
    PublicAdmin = "R060", "public-admin", Error;
}

impl Code {
    /// By its code or its name: what `--allow` takes.
    pub fn find(text: &str) -> Option<Code> {
        Code::ALL
            .iter()
            .copied()
            .find(|code| code.as_str().eq_ignore_ascii_case(text) || code.name() == text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_in_order() {
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(codes.is_sorted_by(|left, right| left < right), "{codes:?}");
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::find(code.as_str()), Some(*code));
            assert_eq!(Code::find(code.name()), Some(*code));
        }
    }
}
