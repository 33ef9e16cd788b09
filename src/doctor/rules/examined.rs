//! What the rules of one link say of it.

use crate::doctor::finding::Finding;

/// What the rules of one link say.
pub(super) struct Examined {
    /// What was seen, in one line, if nothing is wrong.
    pub(super) text: String,
    /// Whether there was anything to look at.
    pub(super) seen: bool,
    /// The link is broken by what another link's finding says.
    pub(super) follows: bool,
    pub(super) findings: Vec<Finding>,
}

impl Examined {
    pub(super) fn well(text: impl Into<String>) -> Self {
        Self { text: text.into(), seen: true, follows: false, findings: Vec::new() }
    }

    pub(super) fn unseen(text: impl Into<String>) -> Self {
        Self { seen: false, ..Self::well(text) }
    }

    /// Broken, and the finding is another link's.
    pub(super) fn follows(text: impl Into<String>) -> Self {
        Self { follows: true, ..Self::well(text) }
    }

    pub(super) fn with(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }
}
