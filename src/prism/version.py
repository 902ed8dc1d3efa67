"""The version of prism; the package's metadata reads it from here."""

VERSION = "0.2.0"
