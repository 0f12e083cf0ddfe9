"""What runs when: registers, descriptors, checks, accounts.

=========  =============================================
module     what it is about
=========  =============================================
registers  one table: hardware, documentation, host
fetch      descriptors of a program, one after another
check      shapes that contradict themselves are refused
multiply   products for the checks, bit by bit
run        from start to done, and what went wrong first
account    every cycle to one layer and one cause
document   registers and layouts as a page
header     the same for C, with a driver
=========  =============================================
"""
