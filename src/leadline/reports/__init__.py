"""Reports: findings, figures and tables on one page, and as files."""
