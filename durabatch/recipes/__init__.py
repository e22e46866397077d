"""Ready jobs to run or to copy, each one readable module on the public interface alone."""
