"""Workflows for tests: the one that the founding paper prints, and values that try to become commands."""

from __future__ import annotations

from hypothesis import strategies as st

FIGURE_3 = """{
  'name': 'tomo-demo-01',
  'description': 'Tomo Demo 01 Workflow',
  'owner': 'pelmer',
  'stages':
  {
    '1-Startup':
    {
      'command': '/home/dm/workflows/tomo-01/start-tomo-01.sh $filePath $outputRootDir',
      'outputVariableRegexList': [
        'Created processing output dir: (?P<outputDir>.*)',
        'File number: (?P<fileNumber>.*)'
      ]
    },
    '2-Process':
    {
      'command': 'ssh txmtwo "source /home/dm/etc/dm.setup.sh > /dev/null;
        /home/dm/workflows/tomo-01/tomo-01.py $filePath $outputDir"'
    },
    '3-Upload':
    {
      'command': 'source /home/dm/etc/dm.setup.sh > /dev/null;
        dm-32id-upload --experiment=$experimentName --data-directory=$outputDir
        --dest-directory=processed/$fileNumber parentFile:$experimentFilePath'
    }
  }
}
"""
"""Figure 3 of Veseli et al., J. Synchrotron Rad. 25, 1574 (2018), as it is printed."""

HOSTILE = (
    "a$(touch PWNED)b; echo INJECTED #.tif",
    "`touch PWNED`",
    "$(touch PWNED)",
    "';touch PWNED;'",
    '";touch PWNED;"',
    "a\ntouch PWNED\nb",
    "x'\"$(touch PWNED)\"'y",
    "&& touch PWNED",
    "| touch PWNED",
    "> PWNED",
    "$filePath",
    "${filePath:-$(touch PWNED)}",
    "a[$(touch PWNED)]",
    "-rf *",
    "~root",
    "\\",
    "a\\'b\\\"c",
    "EOF\ntouch PWNED",
    "\t blanks  within \t",
    "name\udcff\udcfe.tif",
    "!!",
    "{a,b}",
)
"""Values that a shell, given a chance, reads as more than values."""

_PIECES = st.sampled_from(
    [
        "$(touch PWNED)",
        "`touch PWNED`",
        ";touch PWNED;",
        "'",
        '"',
        "\\",
        " ",
        "\n",
        "$",
        "*",
        "#",
        "a",
        ">PWNED",
        "|",
        "&",
    ]
)
hostile_values = st.lists(_PIECES, min_size=1, max_size=6).map("".join)
