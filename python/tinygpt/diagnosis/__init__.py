"""What is wrong with a run, how it is known, and what to change: `diagnose(path)` gives a list of findings."""

from tinygpt.diagnosis.examination import CHECKS as CHECKS
from tinygpt.diagnosis.examination import Diagnosis as Diagnosis
from tinygpt.diagnosis.examination import course_findings as course_findings
from tinygpt.diagnosis.examination import diagnose as diagnose
from tinygpt.diagnosis.examination import examine as examine
from tinygpt.diagnosis.examination import shown as shown
from tinygpt.diagnosis.examination import to_json as to_json
from tinygpt.diagnosis.finding import Finding as Finding
