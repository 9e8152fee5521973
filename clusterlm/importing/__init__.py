"""Other tools' commands and files, turned into a job.yaml."""
