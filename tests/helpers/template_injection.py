"""An expression that a template engine would compute, and its value.

The value has so many digits that no random id or time contains it by chance.
"""

COMPUTED = str(719171 * 999983)
EXPRESSION = "{{719171*999983}}${719171*999983}<%= 719171*999983 %>#{719171*999983}"
