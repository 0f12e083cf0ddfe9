"""The commands: one file each, with its options, its work, its document and what it prints.

Beside them stands what several share:

===========  ================================================================
module       what it is about
===========  ================================================================
options      options and arguments, with their help
defaults     what the library takes where nothing is given
accelerator  settings of an accelerator, from a file and from options
measuring    what ``simulate`` and ``estimate`` do alike
tables       rows of a measurement to print
printing     tables and facts on the console, documents, warnings
stopping     Ctrl-C and SIGTERM
torchrun     several processes of one command
===========  ================================================================
"""
