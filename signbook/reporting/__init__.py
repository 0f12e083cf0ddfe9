"""What a report says: documents, read and checked, become sections of plots and tables.

============  ==================================================
module        what it is about
============  ==================================================
documents     the schemas, and one error for what does not fit
places        layers, of which those that repeat are drawn as one
measured      sections of a ``signbook.simulate/2`` document
swept         sections of a ``signbook.sweep/1`` document
evaluated     ``signbook.eval/1`` documents, and their sections
parts         sections, parts and tables, and how numbers look
============  ==================================================
"""
