"""What a person looks at: self-contained HTML pages."""
